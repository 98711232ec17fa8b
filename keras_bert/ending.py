"""However a run ends, its folder says so, and the command's exit code too. Imports nothing heavy."""

import signal
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

from keras_bert.errors import KerasBertError
from keras_bert.run_folder import RunFolder


class StoppedError(BaseException):
    """SIGINT or SIGTERM asked the run to stop. No `Exception`: nothing that mends errors may go on after it."""

    def __init__(self, signum: int) -> None:
        super().__init__(f"stopped by {signal.Signals(signum).name}")
        self.exit_code = 128 + signum


@contextmanager
def stoppable() -> Iterator[None]:
    """Raise `StoppedError` on the first SIGINT or SIGTERM; the second one kills."""
    caught = (signal.SIGINT, signal.SIGTERM)

    def stop(signum: int, _: FrameType | None) -> None:
        for each in caught:
            signal.signal(each, signal.SIG_DFL)
        raise StoppedError(signum)

    earlier = [(each, signal.signal(each, stop)) for each in caught]
    try:
        yield
    finally:
        for each, handler in earlier:
            signal.signal(each, handler)


@contextmanager
def recorded(folder: RunFolder) -> Iterator[None]:
    """Write into status.json what stopped a run, if anything does."""
    try:
        yield
    except BaseException as error:
        stage = folder.read_json("status.json").get("stage", "setup")
        state = "interrupted" if isinstance(error, StoppedError) else "failed"
        plain = isinstance(error, KerasBertError | StoppedError)
        text = " ".join(str(error).split())
        folder.write_status(state, stage, text if plain else f"{type(error).__name__}: {text}")
        if folder.last.is_file():
            command = folder.read_config()["command"]
            error.add_note(f"to go on: python -m keras_bert {command} --resume {folder.path}")
        raise
