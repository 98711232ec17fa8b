"""`UserError`, and helpers for one-line messages. Standard library only."""

import re
from collections.abc import Iterable
from difflib import get_close_matches
from pickle import UnpicklingError

_MOST_SHOWN = 12
# torch's words for a class or a function in a file of weights.
_CODE = re.compile("GLOBAL|unrecognized function|Can only (create|build)")


class UserError(Exception):
    """Base class of the errors that a user can cause.

    The message is one line: what was wrong, where, what was received, what to do next. Any other
    error is a bug in Thaw and shows its traceback.
    """


def brief(error: BaseException, max_chars: int | None = 200) -> str:
    """Return the text of another library's error on one line.

    The text is cut to `max_chars` characters. An error without a text is named by its class.
    """
    return " ".join(str(error).split())[:max_chars] or type(error).__name__


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
