"""Sample texts generated from a seed: small, offline and learnable."""

import numpy as np

from datamodules.reading.text_rows import TextSplit
from datamodules.reading.texts import Texts

_PEOPLE = (
    "doctors",
    "nurses",
    "teachers",
    "officials",
    "farmers",
    "neighbours",
    "students",
    "visitors",
)
_PLACES = ("the city", "the village", "the harbour", "the valley", "the island", "the north")
_TRUE = {
    "tests": ("counted", "reported", "confirmed", "published"),
    "masks": ("handed out", "delivered", "washed", "ordered"),
    "beds": ("prepared", "counted", "moved", "added"),
}
_FALSE = {
    "garlic": ("cures", "kills", "stops", "melts"),
    "bleach": ("heals", "cleans", "cures", "stops"),
    "radio masts": ("spread", "carry", "make", "hide"),
}
_VIRUS = ("the virus", "every fever", "the illness", "all infections")
CLASSES = ("fake", "real")


def _sentence(rng: np.random.Generator, label: str) -> str:
    def pick(words: tuple[str, ...]) -> str:
        return words[int(rng.integers(len(words)))]

    if label == "real":
        thing = pick(tuple(_TRUE))
        people, place, verb = pick(_PEOPLE), pick(_PLACES), pick(_TRUE[thing])
        return f"{people} in {place} {verb} {int(rng.integers(2, 90))} {thing} today."
    thing = pick(tuple(_FALSE))
    return f"{pick(_PEOPLE)} in {pick(_PLACES)} say {thing} {pick(_FALSE[thing])} {pick(_VIRUS)}!"


def sample_documents(seed: int, count: int = 400) -> list[list[str]]:
    """Return documents of four sentences each; all sentences of a document have the same class.

    Args:
        seed: The same seed returns the same documents.
        count: Number of documents.

    Returns:
        The sentences of each document.
    """
    rng = np.random.default_rng([seed, 0])
    return [[_sentence(rng, CLASSES[i % 2]) for _ in range(4)] for i in range(count)]


def sample_labelled(seed: int, count: int, split: int) -> TextSplit:
    """Return labelled texts of two classes; about one label in twenty is wrong.

    Args:
        seed: The same seed returns the same texts.
        count: Number of texts.
        split: Number of the split, from 0; each split has its own texts.

    Returns:
        Texts and labels.
    """
    rng = np.random.default_rng([seed, 1 + split])
    texts = [_sentence(rng, CLASSES[i % 2]) for i in range(count)]
    wrong = rng.random(count) < 1 / 20
    labels = [(i + int(w)) % 2 for i, w in enumerate(wrong)]
    return TextSplit(np.arange(count), Texts(texts), np.array(labels))
