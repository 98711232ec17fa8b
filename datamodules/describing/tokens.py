"""Lengths of texts in tokens, and what a vocabulary does not know."""

from array import array
from collections import Counter

from datamodules.texts.cleaning import DEFAULT_CLEANING, clean
from datamodules.texts.tokenizing import TextTokenizer

_CHUNK = 1_000  # texts that are tokenised at a time
_NO_ID = -1  # no token has it


class TokenCounter:
    """Counts the tokens of texts, which are cleaned as in training.

    Attributes:
        lengths: Number of tokens of each text, those at its ends included.
        unknown: Number of unknown tokens.
        pieces: What the unknown tokens stand for -> number of times.
    """

    def __init__(self, tokenizer: TextTokenizer) -> None:
        self._backend = tokenizer.backend
        self._backend.no_padding()
        self._backend.no_truncation()
        self._unknown_id = _NO_ID if tokenizer.unknown_id is None else tokenizer.unknown_id
        self._waiting: list[str] = []
        self.lengths = array("q")
        self.unknown = 0
        self.pieces: Counter[str] = Counter()

    def add(self, text: str) -> None:
        """Count the tokens of a text; `flush` counts the last ones."""
        self._waiting.append(clean(text, DEFAULT_CLEANING))
        if len(self._waiting) == _CHUNK:
            self.flush()

    def flush(self) -> None:
        """Count the tokens of the texts that were added."""
        odd = []
        found = self._backend.encode_batch_fast(self._waiting)
        for text, encoding in zip(self._waiting, found, strict=True):
            ids = encoding.ids
            self.lengths.append(len(ids))
            count = ids.count(self._unknown_id)
            self.unknown += count
            if count:
                odd.append(text)
        # Only the slower call knows the places of tokens.
        for text, encoding in zip(odd, self._backend.encode_batch(odd), strict=True):
            self.pieces.update(
                text[start:end]
                for token, (start, end) in zip(encoding.ids, encoding.offsets, strict=True)
                if token == self._unknown_id
            )
        self._waiting.clear()
