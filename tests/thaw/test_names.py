"""The public names, the commands, and the checks of the installation."""

import os
import subprocess
import sys
import sysconfig
from importlib import import_module
from pathlib import Path

import pytest

import thaw
from engine.command_line import shell
from tests.processes import ROOT, environment
from thaw import __main__ as console
from thaw import installation


def test_names_are_documented_and_found_where_they_stand() -> None:
    assert thaw.__all__ == sorted(thaw.__all__)
    assert set(thaw.__all__) == {name for names in thaw._MODULES.values() for name in names}
    for name in thaw.__all__:
        value = getattr(thaw, name)
        assert value.__doc__, name
        assert value.__name__ == name
        assert name in dir(thaw)
    with pytest.raises(AttributeError, match="module 'thaw' has no attribute 'nothing'"):
        thaw.nothing  # noqa: B018


def test_the_import_and_the_help_are_light(tmp_path: Path) -> None:
    """Also the version and an open run folder."""
    (tmp_path / "status.json").write_text('{"state": "running", "stage": "fit"}')
    code = (
        "import sys, thaw\n"
        "from thaw.__main__ import main\n"
        f"assert not thaw.Run({str(tmp_path)!r}).metrics\n"
        "assert main(['--help']) == main(['--version']) == main(['train', '--help']) == 0\n"
        "assert not {'torch', 'lightning', 'hydra', 'pandas', 'numpy'} & set(sys.modules)\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, env=environment()
    )
    for command in console.COMMANDS:
        assert f"  {command} " in done.stdout
    assert "usage: thaw train [GROUP=OPTION ...]" in done.stdout


def test_each_script_is_a_command(capsys: pytest.CaptureFixture[str]) -> None:
    scripts = {path.stem.replace("_", "-") for path in (ROOT / "scripts").glob("*.py")}
    assert scripts | {"train"} == set(console.COMMANDS)
    for command in scripts:
        module = import_module(f"thaw.commands.{command.replace('-', '_')}")
        assert import_module(f"scripts.{command.replace('-', '_')}").main is module.main
        with pytest.raises(SystemExit):
            console.main([command, "--help"])
        assert f"usage: thaw {command} [-h]" in capsys.readouterr().out


def test_an_unknown_command_is_one_line(capsys: pytest.CaptureFixture[str]) -> None:
    assert console.main(["trian"]) == 2
    error = capsys.readouterr().err
    assert error.startswith("error: thaw has no command 'trian'; known: train, predict")
    assert error.count("\n") == 1


@pytest.mark.parametrize("kind", ["package", "folder", "module"])
def test_a_folder_that_hides_a_package_is_named(kind: str, tmp_path: Path) -> None:
    """A folder without `__init__.py` hides a package that an editable install maps."""
    hidden = tmp_path / "engine"
    if kind == "module":
        hidden = tmp_path / "engine.py"
        hidden.touch()
    else:
        hidden.mkdir()
        if kind == "package":
            (hidden / "__init__.py").touch()
    mapped = (
        "import sys; from importlib.machinery import PathFinder\n"
        "class Mapped:\n"
        "    @staticmethod\n"
        f"    def find_spec(name, path=None, target=None): return PathFinder.find_spec(name, [{str(ROOT)!r}])\n"
        "sys.meta_path.append(Mapped)\n"
    )
    used = "import thaw\ntry: thaw.train\nexcept ImportError as error: print(error)\n"
    command = "from thaw.__main__ import main; main(['predict'])"
    done = subprocess.run(
        [sys.executable, "-S", "-c", f"{mapped}{used}{command}"],  # -S: no installed packages
        cwd=tmp_path, capture_output=True, text=True, check=False, env={"PATH": os.environ["PATH"]},
    )  # fmt: skip
    line = (
        f"{hidden} hides Thaw's package engine ({ROOT / 'engine'}); rename it, or start Python in "
        "another folder"
    )
    assert (done.returncode, done.stdout, done.stderr) == (1, f"{line}\n", f"error: {line}\n")


def test_a_missing_package_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    assert installation.installation_fault() == ""
    monkeypatch.setattr(installation, "_PACKAGES", ("no_such_package",))
    fault = f"{ROOT} has no package no_such_package; install Thaw again"
    assert installation.installation_fault() == fault


def test_windows_is_refused_in_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "platform", "win32")
    monkeypatch.delitem(vars(thaw), "train", raising=False)
    with pytest.raises(ImportError, match=r"^Thaw does not run on Windows, .*WSL"):
        thaw.train  # noqa: B018
    monkeypatch.delitem(sys.modules, "thaw.commands")
    with pytest.raises(SystemExit, match=r"^error: Thaw does not run on Windows"):
        import_module("thaw.commands")


def test_commands_of_an_installed_wheel(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Those of new processes, of a shell, and of messages."""
    module = [sys.executable, "-P", "-m", "thaw", "cache"]
    monkeypatch.setattr(shell, "IS_CHECKOUT", False)
    monkeypatch.setattr(sysconfig, "get_path", lambda _: str(tmp_path))
    assert shell.python_command("cache") == shell.typed_command("cache") == module
    (tmp_path / "thaw").touch()
    assert shell.typed_command("cache") == [str(tmp_path / "thaw"), "cache"]
    assert shell.python_command("cache") == module
    assert shell.short_name("wandb-dashboard") == "thaw wandb-dashboard"
    monkeypatch.setattr(shell, "IS_CHECKOUT", True)
    script = [sys.executable, str(ROOT / "scripts" / "wandb_dashboard.py")]
    assert (
        shell.python_command("wandb-dashboard") == shell.typed_command("wandb-dashboard") == script
    )
    assert shell.short_name("train") == "python train.py"
