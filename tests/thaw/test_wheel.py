"""A wheel outside of the checkout: its files, the default job, and the example of the guide."""

import re
import subprocess
import sys
import sysconfig
from importlib.util import find_spec
from pathlib import Path
from zipfile import ZipFile

import pytest

from run_folders.run_folder import RunFolder
from tests.processes import ROOT
from tests.thaw.runs import TEXTS


def run(*command: object, cwd: Path) -> str:
    """Run a program in a new process that does not find the checkout."""
    done = subprocess.run(
        [str(word) for word in command], cwd=cwd, capture_output=True, text=True, check=False,
        env={"PATH": "/usr/bin:/bin", "OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1", "HOME": str(cwd)},
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout + done.stderr


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A wheel of the tracked and new files of the checkout."""
    if find_spec("setuptools") is None or find_spec("pip") is None:
        pytest.skip("setuptools or pip, which build a wheel, is not installed")
    place = tmp_path_factory.mktemp("wheel")
    listed = ["git", "ls-files", "--cached", "--others", "--exclude-standard"]
    for name in run(*listed, cwd=ROOT).splitlines():
        if (ROOT / name).is_file():
            (place / "source" / name).parent.mkdir(parents=True, exist_ok=True)
            (place / "source" / name).write_bytes((ROOT / name).read_bytes())
    build = ["wheel", "--quiet", "--no-deps", "--no-build-isolation", "--wheel-dir", place]
    run(sys.executable, "-m", "pip", *build, place / "source", cwd=place)
    return next(place.glob("*.whl"))


@pytest.fixture(scope="module")
def thaw(wheel: Path) -> Path:
    """The console command in an environment with this wheel and the packages of this one."""
    target = wheel.parent / "environment"
    run(sys.executable, "-m", "venv", "--without-pip", target, cwd=wheel.parent)
    python = target / "bin" / "python"
    packages = Path(
        run(
            python, "-c", "import sysconfig; print(sysconfig.get_path('purelib'))", cwd=wheel.parent
        ).strip()
    )
    (packages / "others.pth").write_text(sysconfig.get_path("purelib"))
    run(sys.executable, "-m", "pip", "--python", python, "install", "--quiet", "--no-deps", wheel, cwd=wheel.parent)  # fmt: skip
    return target / "bin" / "thaw"


def test_files_of_the_wheel(wheel: Path) -> None:
    names = set(ZipFile(wheel).namelist())
    tops = {name.split("/")[0] for name in names if ".dist-info" not in name}
    assert tops == {
        "datamodules", "engine", "hydra_plugins", "keras_bert", "lightning_modules", "reports", "run_folders", "thaw",
    }  # fmt: skip
    configs = {path.relative_to(ROOT).as_posix() for path in (ROOT / "configs").rglob("*.yaml")}
    assert {f"thaw/{name}" for name in configs} <= names
    for folder, pattern in (("reports", "*.j2"), ("datamodules/masks", "class_lists/*.yaml")):
        kept = {path.relative_to(ROOT).as_posix() for path in (ROOT / folder).rglob(pattern)}
        assert kept
        assert kept <= names
    assert {"thaw/py.typed", "engine/py.typed", "datamodules/py.typed"} <= names


def test_the_default_job_from_an_own_folder(thaw: Path, tmp_path: Path) -> None:
    """With an own option, in a folder that has a `configs` and an `engine` of its own."""
    (tmp_path / "configs" / "experiment").mkdir(parents=True)
    (tmp_path / "engine").mkdir()
    (tmp_path / "engine" / "__init__.py").touch()
    (tmp_path / "configs/experiment/own.yaml").write_text(
        "# @package _global_\nmodel:\n  lr: 0.1\n"
    )
    out = run(thaw, "train", "experiment=own", *TEXTS, cwd=tmp_path)
    (folder,) = (RunFolder(path) for path in (tmp_path / "runs" / "own").iterdir())
    assert f"report: {folder.report}" in out
    assert folder.state == "finished"
    assert "lr: 0.1\n" in folder.config.read_text()


def test_the_example_of_the_guide(thaw: Path, tmp_path: Path) -> None:
    guide = (ROOT / "docs" / "how-to" / "python.md").read_text(encoding="utf-8")
    example = re.search(r"```python\n(.+?)```", guide, re.DOTALL)
    assert example
    out = run(thaw.with_name("python"), "-c", example[1], cwd=tmp_path)
    assert "prediction" in out
