"""Embedded texts, generated from a seed: the first run needs no download and no files."""

from collections.abc import Iterable
from itertools import islice
from typing import Annotated, Any, TypedDict

import numpy as np
from annotated_types import Ge

from datamodules.base import SPLITS
from datamodules.reading.errors import BadRow
from datamodules.reading.rows import Row
from datamodules.reading.sources import Files
from datamodules.text import TextDataModule
from datamodules.texts.tokenizing import TokenizerSpec

_PLACES = (
    "the harbour", "the north lake", "the old bridge", "the village pond", "the upper valley",
    "the river mouth", "the ski slope",
)  # fmt: skip
# Scores: a positive sum of source and verb makes a statement real.
_SOURCES = {
    "the weather service": 2, "the measuring station": 2, "the park ranger": 1, "a passer-by": 0,
    "my neighbour": -1, "an anonymous post": -2, "a viral video": -2,
}  # fmt: skip
_VERBS = {"measured": 1, "confirmed": 1, "reports": 0, "thinks": 0, "swears": -1, "dreamt": -1}
_CLAIMS = (
    "the ice melts",
    "the thaw has begun",
    "the snow is gone",
    "the ice holds",
    "the frost returns",
)
_DETAILS = (
    "since {n} days",
    "at {n} degrees",
    "{n} cm a week",
    "for the {n}th time this winter",
    "down to {n} cm",
)
_TAILS = (
    "more at https://thaw.example/{n}", "#thaw #ice", "❄️", "🌡️🌞", "stay safe 👍🏽",
    "photos follow",
    "as the map of the last {n} years shows, region by region and week by week",
    "share before it is deleted 😱",
    ("the full table with all stations is on the notice board of the town hall "
     "until the end of the month"),
)  # fmt: skip
_NOISE = 0.03  # share of wrong labels


class Rows(TypedDict, total=False):
    """Number of rows of each split; a split that is left out has the default number."""

    train: int
    val: int
    test: int


ROWS = Rows(train=2000, val=500, test=500)
VOCABULARY = TokenizerSpec(vocab_size=512)
CLASSES = ["fake", "real"]
EMBEDDED = Files(train="embedded", val="embedded", test="embedded")


def sample_text(rows: int, seed: int) -> list[tuple[str, str]]:
    """Generate statements about melting ice from trustworthy and untrustworthy sources.

    A statement is real if the scores of its source and its verb have a positive sum; a sum of 0 is
    not used. `never` before the verb inverts the label, so single words do not decide it. Three
    percent of the labels are wrong. No text occurs twice.

    Args:
        rows: Number of statements.
        seed: Seed; equal seeds return equal statements.

    Returns:
        (text, label) pairs; the label is `real` or `fake`.
    """
    rng = np.random.default_rng(seed)

    def pick(options: Iterable[str]) -> str:
        choices = list(options)
        return choices[int(rng.integers(len(choices)))].format(n=int(rng.integers(2, 60)))

    result: dict[str, str] = {}
    while len(result) < rows:
        source, verb = pick(_SOURCES), pick(_VERBS)
        trust = _SOURCES[source] + _VERBS[verb]
        if trust == 0:
            continue
        negated = rng.random() < 0.3  # noqa: PLR2004
        real = (trust > 0) != negated
        extras = [pick(_DETAILS) for _ in range(int(rng.integers(0, 3)))]
        tails = [pick(_TAILS) for _ in range(int(rng.integers(0, 3)))]
        claim = (
            f"{source} {'never ' if negated else ''}{verb} that at {pick(_PLACES)} {pick(_CLAIMS)}"
        )
        text = ", ".join([claim, *extras]) + "".join(f" {tail}" for tail in tails)
        if rng.random() < _NOISE:
            real = not real
        result.setdefault(text[0].upper() + text[1:], "real" if real else "fake")
    return list(result.items())


class SampleTextDataModule(TextDataModule):
    """Statements generated from a fixed seed, the same in every run."""

    def __init__(
        self,
        rows: Rows = ROWS,
        folder: str = "sample_text",
        files: Files = EMBEDDED,
        tokenizer: str | TokenizerSpec = VOCABULARY,
        classes: list[str] | None = CLASSES,
        id_column: str | None = "id",
        max_length: Annotated[int, Ge(3)] = 48,
        **settings: Any,  # noqa: ANN401 - the base's own arguments
    ) -> None:
        """Store the number of rows of each split; other arguments are those of `TextDataModule`."""
        super().__init__(
            folder,
            tokenizer,
            files,
            classes=classes,
            id_column=id_column,
            max_length=max_length,
            **settings,
        )
        self.rows: Rows = {**ROWS, **rows}

    def sources(self) -> dict[str, tuple[str, Iterable[Row | BadRow]]]:
        """Generate all statements and divide them among the splits."""
        counts = {split: int(self.rows[split]) for split in SPLITS}  # type: ignore[literal-required]
        made = iter(sample_text(sum(counts.values()), seed=0))
        return {
            split: (f"sample_text, {split}", self._rows_of(islice(made, count)))
            for split, count in counts.items()
        }

    def _rows_of(self, made: Iterable[tuple[str, str]]) -> list[Row | BadRow]:
        return [
            Row(
                i,
                None,
                {"id": str(i), self.reader.text_column: text, self.labels.columns[0]: label},
            )
            for i, (text, label) in enumerate(made)
        ]
