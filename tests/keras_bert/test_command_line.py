"""The command line itself: fast where there is nothing to do, and clear where the extra is missing."""

import importlib.util
import subprocess
import sys

import pytest

from keras_bert import command_line
from keras_bert.command_line import main
from tests.conftest import ROOT


@pytest.mark.parametrize(
    "words", ["--help", "pretrain --help", "finetune --help", "predict --help", "convert --help"]
)
def test_help_imports_nothing_heavy(words: str) -> None:
    script = (
        "import sys\nfrom keras_bert.command_line import main\n"
        "try:\n    main(sys.argv[1:])\n"
        "finally:\n    heavy = {'tensorflow', 'keras', 'numpy', 'pandas', 'torch'} & set(sys.modules)\n    print(heavy, file=sys.stderr)"
    )
    done = subprocess.run(
        [sys.executable, "-c", script, *words.split()],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout.startswith("usage: python -m keras_bert")
    assert done.stderr == "set()\n"


@pytest.mark.parametrize("words", [[], ["pretrain"], ["predict", "run"]])
def test_without_the_extra_it_is_named(
    words: list[str], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    find = importlib.util.find_spec
    monkeypatch.setattr(
        command_line.importlib.util,
        "find_spec",
        lambda name: None if name == "tensorflow" else find(name),
    )
    assert main(words) == 1
    assert capsys.readouterr().err == (
        "error: keras_bert needs tensorflow; install the extra `keras`: pip install -e '.[keras]'\n"
    )


def test_an_unknown_option_is_refused(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as caught:
        main(["pretrain", "--epoch", "two"])
    assert caught.value.code == 2
    assert "error:" in capsys.readouterr().err
