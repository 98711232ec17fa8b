"""Cleaning of tweets: pure functions with one switch each.

The steps follow Alghamdi, Lin & Luo (Knowledge-Based Systems 274, 2023, doi
10.1016/j.knosys.2023.110642). In that paper every step except demojizing lowers the accuracy.
"""

import re
import string
import unicodedata
from collections.abc import Callable
from typing import TypedDict

import emoji

_TAG = re.compile(r"</?[a-zA-Z][^<>]*>|<!--.*?-->|<![a-zA-Z][^<>]*>", re.DOTALL)
_URL = re.compile(r"(?:https?://|www\.)\S+", re.IGNORECASE)
_USERNAME = re.compile(r"(?<![\w.@+-])@\w+")
_HASH = re.compile(r"#(?=\w)")
_REPEATED_LETTER = re.compile(r"([^\W\d_])\1{2,}")
# No emoji has an ASCII character but at its start: keycaps.
_MAY_BE_EMOJI = re.compile(r"[0-9#*]?[^\x00-\x7f]+")
_SPACES = re.compile(r"[ \t\r\n]+")


class Cleaning(TypedDict, total=False):
    """Switches of the cleaning steps, in the order in which they are applied.

    A switch that is left out is as in `DEFAULT_CLEANING`.
    """

    html: bool
    url: bool
    username: bool
    hashtag: bool
    rep: bool
    punctuation: bool
    demojize: bool


DEFAULT_CLEANING = Cleaning(
    html=False,
    url=False,
    username=False,
    hashtag=False,
    rep=False,
    punctuation=False,
    demojize=True,
)


def _squeeze(text: str) -> str:
    return _SPACES.sub(" ", text).strip(" ")


def strip_html(text: str) -> str:
    """Remove HTML tags and comments, including nested ones; `a < b` stays."""
    before = None
    while before != text:
        before, text = text, _TAG.sub("", text)
    return _squeeze(text)


def strip_urls(text: str) -> str:
    """Remove links that begin with http://, https:// or www."""
    return _squeeze(_URL.sub("", text))


def strip_usernames(text: str) -> str:
    """Remove @names; e-mail addresses stay."""
    return _squeeze(_USERNAME.sub("", text))


def strip_hashes(text: str) -> str:
    """Remove the # of hashtags and keep their words."""
    return _HASH.sub("", text)


def collapse_repeats(text: str) -> str:
    """Replace three or more equal letters in a row by one; digits and punctuation stay."""
    return _REPEATED_LETTER.sub(r"\1", text)


def strip_punctuation(text: str) -> str:
    """Remove ASCII and Unicode punctuation; joiners inside words and emoji stay."""
    kept = (
        c
        for c in text
        if c not in string.punctuation and not unicodedata.category(c).startswith("P")
    )
    return _squeeze("".join(kept))


def demojize(text: str) -> str:
    """Replace emoji by text, for example `:thumbs_up:`; flags and skin tones are one emoji."""
    # The emoji library looks at each character in Python, which takes longer than tokenizing.
    return text if text.isascii() else _MAY_BE_EMOJI.sub(_demojized, text)


def _demojized(found: re.Match[str]) -> str:
    return emoji.demojize(found[0])


_STEPS: dict[str, Callable[[str], str]] = {
    "html": strip_html,
    "url": strip_urls,
    "username": strip_usernames,
    "hashtag": strip_hashes,
    "rep": collapse_repeats,
    "punctuation": strip_punctuation,
    "demojize": demojize,
}


def clean(text: str, switches: Cleaning) -> str:
    """Apply the cleaning steps that are switched on.

    Args:
        text: A raw text.
        switches: Step -> on or off.

    Returns:
        The cleaned text; unchanged if all steps are off.
    """
    chosen: dict[str, object] = {**DEFAULT_CLEANING, **switches}
    for name, step in _STEPS.items():
        if chosen[name]:
            text = step(text)
    return text
