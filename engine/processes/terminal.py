"""Output on the terminal and in log files. Names and texts of data are shown as they are.

Nothing in them is interpreted: no markup, no escape sequence, no change of the writing direction.
"""

import logging
import re
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from run_folders.errors import printable

if TYPE_CHECKING:
    from rich.console import Console

_NOT_INDENTED = re.compile(r"\n(?!  )")


def console(**options: Any) -> "Console":  # noqa: ANN401 - those of rich
    """Return a console that prints texts such as `[red]` and `:smile:` as they are."""
    from rich.console import Console  # slow to import

    return Console(**options, markup=False, emoji=False)


class LineFormatter(logging.Formatter):
    """Formats each message as a line without control characters, and indented lines of a list.

    Only indented lines follow the first one, so that no text of a message looks like a message.
    """

    def formatMessage(self, record: logging.LogRecord) -> str:  # noqa: N802 - the library's name
        """Return the lines; a traceback follows them in lines of its own."""
        return _NOT_INDENTED.sub(r"\\n", printable(super().formatMessage(record)))


def log_to_terminal(level: int = logging.INFO) -> None:
    """Log messages of this level and above to stderr, for a script that Hydra does not start."""
    handler = logging.StreamHandler()
    handler.setFormatter(LineFormatter("%(message)s"))
    logging.basicConfig(level=level, handlers=[handler])


@contextmanager
def logging_run(settings: Any) -> Iterator[None]:  # noqa: ANN401 - a node of Hydra's config
    """Write the log of a run that a Python program starts, and leave its own handlers alone.

    The log file is that of `train.py`. The terminal shows the messages if the program has no
    handlers.

    Args:
        settings: Hydra's node `job_logging`.
    """
    root, line, quiet = logging.getLogger(), settings.formatters.simple.format, settings.loggers
    file = logging.FileHandler(settings.handlers.file.filename, delay=True, encoding="utf-8")
    file.setFormatter(LineFormatter(line))
    terminal = logging.StreamHandler()
    terminal.setFormatter(LineFormatter("%(message)s"))
    added: list[logging.Handler] = [file] if root.handlers else [terminal, file]
    levels = {"": root.level, **{name: logging.getLogger(name).level for name in quiet}}
    root.setLevel(logging.INFO)
    for name, options in quiet.items():
        logging.getLogger(name).setLevel(options.level)
    for handler in added:
        root.addHandler(handler)
    try:
        yield
    finally:
        for handler in added:
            root.removeHandler(handler)
            handler.close()
        for name, level in levels.items():
            logging.getLogger(name).setLevel(level)
