"""The end of a command or of a call: one line for a failure, and the exit code of a command."""

import os
import signal
import sys
import traceback
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from engine.processes.signals import InterruptedRunError, signals_raise
from run_folders.errors import UserError, brief, one_line, printable
from run_folders.files import write_text

# Environment variable with the path of the error file of a process that a supervisor started. The
# process writes its error there and prints nothing; see engine/processes/first_failure.py.
ERROR_FILE = "THAW_ERROR_FILE"


# Errors of a config. They are compared by name, so that the check does not import Hydra.
_FROM_HYDRA = {
    "hydra.errors.HydraException",
    "omegaconf.errors.OmegaConfBaseException",
    "yaml.error.YAMLError",
}


@dataclass
class Outcome:
    """The result of a command.

    Attributes:
        code: The exit code.
    """

    code: int = 0


def is_user_error(error: BaseException) -> bool:
    """Return whether the error's message says what to do, so that no traceback is needed."""
    return isinstance(error, UserError) or _is_from_hydra(error)


def _is_from_hydra(error: BaseException) -> bool:
    """Return whether Hydra or OmegaConf raised the error.

    The classes are compared by name, so that the check does not import Hydra.
    """
    names = {f"{kind.__module__}.{kind.__qualname__}" for kind in type(error).__mro__}
    return bool(names & _FROM_HYDRA)


def describe(error: BaseException) -> str:
    """Return the error's message in as few lines as possible."""
    text = str(error).strip() or type(error).__name__
    if isinstance(error, UserError | InterruptedRunError):
        return text
    if _is_from_hydra(error):
        lines = [*text.splitlines(), *str(error.__cause__ or "").splitlines()]
        return "; ".join(dict.fromkeys(line.strip() for line in lines if line.strip()))
    return f"{type(error).__name__}: {brief(error, max_chars=None)}"


@contextmanager
def report_failure() -> Iterator[Outcome]:
    """Turn signals and exceptions into a line on stderr and an exit code.

    HYDRA_FULL_ERROR=1 also prints the tracebacks of user errors, which are hidden otherwise.

    Yields:
        The outcome. Its code becomes 128 + signal number after a signal (130 for SIGINT, 143 for
        SIGTERM), and 1 after any other failure.
    """
    outcome = Outcome()
    try:
        with signals_raise():
            yield outcome
    except InterruptedRunError as error:
        _report(error, str(error))
        outcome.code = error.exit_code
    except Exception as error:
        if os.environ.get("HYDRA_FULL_ERROR") == "1" or not is_user_error(error):
            print(printable("".join(traceback.format_exception(error))), file=sys.stderr, end="")
        _report(error, describe(error))
        outcome.code = 1


@contextmanager
def errors_for_python() -> Iterator[None]:
    """Raise what a program in Python expects: one class of errors, and Python's own for signals.

    Raises:
        UserError: In place of an error of Hydra about the config.
        KeyboardInterrupt: On Ctrl-C.
        SystemExit: On another signal that asks the process to stop.
    """
    try:
        with signals_raise(second_ends=False):
            yield
    except InterruptedRunError as error:
        if error.signum == signal.SIGINT:
            raise KeyboardInterrupt(str(error)) from error
        raise SystemExit(error.exit_code) from error
    except Exception as error:
        if _is_from_hydra(error):
            raise UserError(describe(error)) from error
        raise


def _report(error: BaseException, message: str) -> None:
    text = "\n".join([message, *map(one_line, getattr(error, "__notes__", []))])
    if ERROR_FILE not in os.environ:
        print(f"error: {printable(text)}", file=sys.stderr)
    elif not Path(os.environ[ERROR_FILE]).exists():  # keep the time stamp of the failure
        rank = os.environ["RANK"]  # the supervisor sets both
        write_text(Path(os.environ[ERROR_FILE]), text if rank == "0" else f"rank {rank}: {text}")
