"""The rungs of a ladder, and how they are compared."""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt

from lightning_modules.networks.freezing.blocks import Block
from reports.statistics import mcnemar_exact, smallest_difference, wilson_interval

HEAD, ALL = "head", "all"


@dataclass(frozen=True)
class Rung:
    """How much of the backbone trains.

    Attributes:
        name: `head`, the number of last blocks, or `all`.
        start_layer: First layer that trains; None for the head alone, `all` for the whole backbone.
    """

    name: str
    start_layer: str | None


@dataclass(frozen=True)
class Climbed:
    """A rung that was trained.

    Attributes:
        name, start_layer: See `Rung`.
        folder: Name of its run folder in that of the ladder.
        trainable: Number of trainable parameters.
        seconds: Duration of its training and of the features that it computed.
        hits: Validation samples that it predicts correctly.
        n: Number of validation samples.
        acc: Their share, 0..1.
        interval: 95 % Wilson interval of the accuracy.
        than: The rung that it was compared with; None for the first.
        p: p-value of McNemar's exact test against that rung.
        smallest: The smallest difference of accuracy that this test would have found among as many
            samples on which the two differ; None if it could not have found any.
        better: Whether it is better than that rung by the test.
    """

    name: str
    start_layer: str | None
    folder: str
    trainable: int
    seconds: float
    hits: int
    n: int
    acc: float
    interval: tuple[float, float]
    than: str | None = None
    p: float | None = None
    smallest: float | None = None
    better: bool = True


def rungs_of(blocks: Sequence[Block]) -> list[Rung]:
    """Return the rungs: head, last block, last two, four, ... and the whole backbone."""
    found, count = [Rung(HEAD, None)], 1
    while count < len(blocks):
        found.append(Rung(str(count), blocks[-count].layer))
        count *= 2
    return [*found, Rung(ALL, ALL)]


def climbed(
    rung: Rung, folder: str, trainable: int, seconds: float, correct: npt.NDArray[np.bool_]
) -> Climbed:
    """Return a trained rung that is not compared yet.

    Args:
        rung: The rung.
        folder: Name of its run folder.
        trainable: Number of trainable parameters.
        seconds: Duration of its training.
        correct: [N] whether a validation sample is predicted correctly.
    """
    hits, count = int(correct.sum()), len(correct)
    interval = wilson_interval(hits, count)
    return Climbed(
        rung.name, rung.start_layer, folder, trainable, seconds, hits, count, hits / count, interval
    )


def compared(
    row: Climbed,
    correct: npt.NDArray[np.bool_],
    below: Climbed,
    correct_below: npt.NDArray[np.bool_],
    significance: float,
) -> Climbed:
    """Compare a rung with one below it on the same samples.

    Args:
        row: The rung.
        correct: [N] whether it predicts a validation sample correctly.
        below: The other rung.
        correct_below: The same of that rung.
        significance: The p-value below which the two differ.
    """
    gained, lost = int((correct & ~correct_below).sum()), int((~correct & correct_below).sum())
    p = mcnemar_exact(gained, lost)
    smallest = smallest_difference(gained + lost, len(correct), significance)
    better = p < significance and gained > lost
    return replace(row, than=below.name, p=p, smallest=smallest, better=better)
