"""`UserError`, and helpers for one-line messages. Standard library only."""

import re
from collections.abc import Iterable
from difflib import get_close_matches
from pickle import UnpicklingError
from typing import Self

_MOST_SHOWN = 12
# torch's words for a class or a function in a file of weights.
_CODE = re.compile("GLOBAL|unrecognized function|Can only (create|build)")


# Marks, overrides and isolates of the writing direction, and further line breaks.
_DIRECTIONS = (
    *range(0x202A, 0x202F), *range(0x2066, 0x206A), 0x2028, 0x2029, 0x200E, 0x200F, 0x061C
)  # fmt: skip
# Characters without a width could make two names look the same. Joiners stay: emoji have them.
_INVISIBLE = (0x200B, 0x2060, 0xFEFF, 0x00AD, 0x180E)
_CONTROLS = (
    *range(0x20), *range(0x7F, 0xA0), *_DIRECTIONS, *_INVISIBLE, *range(0xD800, 0xE000)
)  # fmt: skip
_ESCAPES = {code: repr(chr(code))[1:-1] for code in _CONTROLS if chr(code) not in "\n\t"}


def printable(text: object) -> str:
    r"""Return a text with control characters as escapes; line breaks and tabs are kept.

    Example:
        `printable("\x1b[31mred")` returns `\\x1b[31mred`, with a backslash.
    """
    return str(text).translate(_ESCAPES)


def one_line(name: object) -> str:
    """Return a name, such as that of a file, like `printable`, with line breaks as escapes."""
    return printable(name).replace("\n", "\\n")


class UserError(Exception):
    """Base class of the errors that a user can cause.

    The message is one line: what was wrong, where, what was received, what to do next. Further
    arguments are the lines of a list, which are indented. Each argument is one line, whatever
    control characters are in the names and values that it contains. Any other error is a bug in
    Thaw and shows its traceback.
    """

    def __str__(self) -> str:
        """Return the message, and the lines of its list."""
        return "\n  ".join(map(one_line, self.args))

    @classmethod
    def from_text(cls, text: str) -> Self:
        """Return an error with the text of another error, which may have a list."""
        return cls(*(line.removeprefix("  ") for line in text.split("\n")))


def brief(error: BaseException, max_chars: int | None = 200) -> str:
    """Return the text of another library's error on one line.

    A text of more than `max_chars` characters is cut after its last whole sentence, or else its
    last whole word. An error without a text is named by its class.
    """
    text = " ".join(str(error).split()) or type(error).__name__
    if max_chars is None or len(text) <= max_chars:
        return text
    sentences = text[:max_chars].rpartition(". ")[0]
    words = text[:max_chars].rpartition(" ")[0] or text[:max_chars]
    return sentences if len(sentences) > max_chars // 2 else f"{words} ..."


def loading_reason(error: BaseException) -> str:
    """Return why weights cannot be loaded, on one line.

    For a file that torch cannot read, its own text says how to run the code in the file.
    """
    first = error
    cause: BaseException | None = error
    while cause is not None:
        first = cause if isinstance(cause, UnpicklingError) else first
        cause = cause.__cause__ or cause.__context__
    if isinstance(first, UnpicklingError) and _CODE.search(str(first)):
        return "it has other content than tensors and plain values, which could run code"
    if "weights_only" in str(error):
        return f"it is damaged, or not a file that torch.save writes: {brief(first)}"
    return brief(error)


def shortened(names: Iterable[str], count: int = 5) -> str:
    """Return the first names, joined by commas, and the number of the others."""
    found = list(names)
    more = len(found) - count
    return ", ".join(found[:count]) + (f" and {more} more" if more > 0 else "")


def truncation(count: int, total: int, max_length: int) -> str:
    """Return how many of the texts are truncated to a number of tokens, in words."""
    share = f"{count / total:.1%}".replace("%", " %")
    few = "less than 0.1 %" if share == "0.0 %" else share
    texts = f"{count:,} of {total:,} texts {'is' if count == 1 else 'are'}"
    return f"{texts} longer than {max_length} tokens ({few})"


def near_names(name: str, known: Iterable[str], count: int = 3, cutoff: float = 0.6) -> list[str]:
    """Return the known names that are similar to a mistyped one.

    Args:
        name: The mistyped name.
        known: The names that exist.
        count: How many to return at most.
        cutoff: The lowest similarity, 0 to 1, where 1 means equal.

    Returns:
        The names, the most similar first.
    """
    return get_close_matches(name, list(known), n=count, cutoff=cutoff)


def nearest(name: str, known: Iterable[str], count: int = 3) -> str:
    """Suggest the known names nearest to a mistyped one, or list the known names.

    A dotted key also counts as near if its last part is the same.

    Returns:
        `did you mean a or b?`, or `known: a, b, c`.
    """
    names = list(dict.fromkeys(known))
    leaf = name.rpartition(".")[2]
    close = near_names(name, names, count, cutoff=0.5)
    close += [path for path in names if path.rpartition(".")[2] == leaf and path not in close]
    if close:
        return f"did you mean {' or '.join(close[:count])}?"
    shown = ", ".join(sorted(names)[:_MOST_SHOWN])
    return f"known: {shown}{', ...' if len(names) > _MOST_SHOWN else ''}"
