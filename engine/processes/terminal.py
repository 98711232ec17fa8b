"""Output on the terminal and in log files. Names and texts of data are shown as they are.

Nothing in them is interpreted: no markup, no escape sequence, no change of the writing direction.
"""

import logging
import re
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from rich.console import Console

_NOT_INDENTED = re.compile(r"\n(?!  )")
_KEPT = "\n\t"
# Overrides and isolates of the writing direction, and further line breaks.
_DIRECTIONS = (*range(0x202A, 0x202F), *range(0x2066, 0x206A), 0x2028, 0x2029)
_CONTROLS = (*range(0x20), *range(0x7F, 0xA0), *_DIRECTIONS, *range(0xD800, 0xE000))
_ESCAPES = {code: repr(chr(code))[1:-1] for code in _CONTROLS if chr(code) not in _KEPT}


def printable(text: object) -> str:
    r"""Return a text with control characters as escapes; line breaks and tabs are kept.

    Example:
        `printable("\x1b[31mred")` returns `\\x1b[31mred`, with a backslash.
    """
    return str(text).translate(_ESCAPES)


def one_line(name: object) -> str:
    """Return a name, such as that of a file, like `printable`, with line breaks as escapes."""
    return printable(name).replace("\n", "\\n")


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


def log_to_terminal() -> None:
    """Log messages to stderr, for a script that Hydra does not start."""
    handler = logging.StreamHandler()
    handler.setFormatter(LineFormatter("%(message)s"))
    logging.basicConfig(level=logging.INFO, handlers=[handler])
