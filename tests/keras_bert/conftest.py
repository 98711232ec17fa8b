"""The command line of keras_bert, and models small enough for tests."""

import contextlib
import io
import os
from collections.abc import Callable
from pathlib import Path

import pytest

from keras_bert.command_line import main
from tests.conftest import Ended

os.environ["KERAS_BACKEND"] = "tensorflow"
with contextlib.suppress(ImportError):
    # PyTorch's compiler and TensorFlow both contain LLVM. The process crashes if TensorFlow's is
    # loaded first.
    import triton  # noqa: F401
with contextlib.suppress(ImportError):
    # Hydra closes every handler of logging. The handler of absl, which TensorFlow installs, would
    # close the stream that pytest captures.
    from absl import logging as absl_logging

    absl_logging.get_absl_handler().python_handler.setStream(io.StringIO())

SMALL = (
    "--num-layers", "1", "--hidden-size", "16", "--num-att-heads", "2", "--intermediate-size", "32", "--no-tensorboard",
)  # fmt: skip

Command = Callable[..., Ended]


@pytest.fixture
def command(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> Command:
    """Call `python -m keras_bert` with arguments, in an empty folder.

    The run folder is `tmp_path/run` unless another folder is given.
    """

    def call(*arguments: str, folder: Path | None = None) -> Ended:
        target = folder or tmp_path / "run"
        trains = arguments[0] in {"pretrain", "finetune"} and "--resume" not in arguments
        with monkeypatch.context() as patch:
            patch.chdir(tmp_path)
            capsys.readouterr()
            code = main([*arguments, *(["--out", str(target)] if trains else [])])
        captured = capsys.readouterr()
        return Ended(code, captured.out, captured.err, target)

    return call
