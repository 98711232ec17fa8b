"""The command line: help is fast, and a missing extra or an invalid option is reported."""

import importlib.util
import logging
import runpy
import subprocess
import sys

import pytest

from keras_bert import command_line
from keras_bert.command_line import main
from tests.conftest import ROOT


@pytest.mark.parametrize(
    "arguments",
    ["--help", "pretrain --help", "finetune --help", "predict --help", "convert --help"],
)
def test_help_imports_nothing_heavy(arguments: str) -> None:
    script = (
        "import sys\nfrom keras_bert.command_line import main\n"
        "try:\n    main(sys.argv[1:])\n"
        "finally:\n    heavy = {'tensorflow', 'keras', 'numpy', 'pandas', 'torch'} & set(sys.modules)\n    print(heavy, file=sys.stderr)"
    )
    done = subprocess.run(
        [sys.executable, "-c", script, *arguments.split()],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout.startswith("usage: python -m keras_bert")
    assert done.stderr == "set()\n"


@pytest.mark.parametrize("arguments", [[], ["pretrain"], ["predict", "run"]])
def test_a_missing_extra_is_named(
    arguments: list[str], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    find = importlib.util.find_spec
    monkeypatch.setattr(
        command_line.importlib.util,
        "find_spec",
        lambda name: None if name == "tensorflow" else find(name),
    )
    assert main(arguments) == 1
    assert capsys.readouterr().err == (
        "error: keras_bert needs tensorflow; install the extra `keras`: pip install -e '.[keras]'\n"
    )


def test_an_invalid_option_is_rejected(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as caught:
        main(["pretrain", "--epoch", "two"])
    assert caught.value.code == 2
    assert "error:" in capsys.readouterr().err


def test_the_program_shows_progress_and_what_was_passed_over(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(command_line, "main", lambda: 0)
    readers = logging.getLogger("datamodules")
    before = readers.level
    readers.setLevel(logging.WARNING)
    try:
        with pytest.raises(SystemExit) as ended:
            runpy.run_module("keras_bert", run_name="__main__")
        assert ended.value.code == 0
        assert logging.getLogger("datamodules.reading.progress").isEnabledFor(logging.INFO)
    finally:
        readers.setLevel(before)
