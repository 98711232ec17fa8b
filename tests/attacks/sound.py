"""Small sound runs, and the commands of Thaw in this process."""

import contextlib
import importlib
import io
import logging
import os
import sys
import traceback
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

TINY_BERT = (
    "data.tokenizer.vocab_size=120", "data.max_length=24", "model.head.hidden=4",
    "model.backbone.hidden_size=8", "model.backbone.num_hidden_layers=1",
    "model.backbone.num_attention_heads=2", "model.backbone.intermediate_size=8",
)  # fmt: skip
SMALL = "data.rows={train: 32, val: 12, test: 12}"
RUNS = {
    "text": (SMALL, *TINY_BERT),
    "image": ("data=sample_images", "model=sample_image_classifier", SMALL),
    "masks": ("data=sample_scenes", "model=sample_segmenter", SMALL),
}
TRAIN = ("trainer.accelerator=cpu", "trainer.max_epochs=1", "cache.features=false")


@dataclass(frozen=True)
class Called:
    """How a command ended.

    Attributes:
        code: The exit code.
        out, err: What it printed.
        crash: The traceback of an error that is no `UserError`; empty if there was none.
    """

    code: int
    out: str
    err: str
    crash: str

    @property
    def error(self) -> str:
        """The error message, without `error: `."""
        return self.err[self.err.index("error: ") + 7 :].strip() if "error: " in self.err else ""


def call(program: str, *arguments: object, cwd: Path) -> Called:
    """Call the main function of a program in this process.

    Args:
        program: `train`, or the name of a script.
        arguments: The arguments of its command line.
        cwd: The working directory.
    """
    entry = importlib.import_module("train" if program == "train" else f"scripts.{program}")
    out, err, crash = io.StringIO(), io.StringIO(), ""
    argv = [f"{program}.py", *map(str, arguments)]
    with _restored(cwd, argv), contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        try:
            code = entry.main()
        except SystemExit as error:
            code = error.code if isinstance(error.code, int) else 1
        except BaseException:
            code, crash = 1, traceback.format_exc()
    marker = "Traceback (most recent call last)"
    if not crash and marker in err.getvalue():
        crash = err.getvalue()[err.getvalue().index(marker) :]
    return Called(code, out.getvalue(), err.getvalue(), crash)


@contextlib.contextmanager
def _restored(cwd: Path, argv: list[str]) -> Iterator[None]:
    """Restore what a command changes in its process."""
    before, argv_before, environment = Path.cwd(), sys.argv, dict(os.environ)
    root = logging.getLogger()
    handlers, level = root.handlers[:], root.level
    os.chdir(cwd)
    sys.argv = argv
    try:
        yield
    finally:
        for handler in [h for h in root.handlers if h not in handlers]:
            handler.close()
        root.handlers[:], root.level, sys.argv = handlers, level, argv_before
        os.environ.clear()
        os.environ.update(environment)
        os.chdir(before)


def make_runs(folder: Path) -> dict[str, Path]:
    """Train a run of each kind of input, and a sweep of two jobs of texts.

    Returns:
        `text`, `image`, `masks` and `sweep` with their folders.
    """
    made = {name: folder / name for name in (*RUNS, "sweep")}
    commands = {name: (*words, f"hydra.run.dir={made[name]}") for name, words in RUNS.items()} | {
        "sweep": ("-m", SMALL, *TINY_BERT, "seed=1,2", f"hydra.sweep.dir={made['sweep']}")
    }
    for name, words in commands.items():
        called = call("train", *words, *TRAIN, cwd=folder)
        if called.code:
            msg = f"{name}: {called.crash or called.err}"
            raise RuntimeError(msg)
    return made
