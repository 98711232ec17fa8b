"""What the probes of a backbone's blocks advise."""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt

from reports.statistics import mcnemar_exact

INPUT_LAYERS = "the input layers"


@dataclass(frozen=True)
class Probed:
    """The probe of one state.

    Attributes:
        after: The block that returns the state; `INPUT_LAYERS` before the first one.
        start_layer: The block after it, from which a run would train; None for the head alone.
        pooling: How the state is pooled.
        width: Number of its channels.
        hits: Validation samples that the probe predicts correctly.
        acc: Their share, 0..1.
        interval: 95 % Wilson interval of the accuracy.
        loss: Cross-entropy on validation.
        penalty: Penalty that validation chose.
        p: p-value of McNemar's exact test against the best state; 1 for the best one.
        best: Whether it is the best state.
    """

    after: str
    start_layer: str | None
    pooling: str
    width: int
    hits: int
    acc: float
    interval: tuple[float, float]
    loss: float
    penalty: float
    p: float = 1.0
    best: bool = False


@dataclass(frozen=True)
class Advice:
    """The layer from which a run should train.

    Attributes:
        start_layer: Name of the layer; None for the head alone.
        after: The block whose state suffices.
        pooling: How that state is pooled.
        why: The reason.
    """

    start_layer: str | None
    after: str
    pooling: str
    why: str


def compare_with_best(
    rows: Sequence[Probed], correct: Sequence[npt.NDArray[np.bool_]]
) -> list[Probed]:
    """Mark the best state, and compare all others with it.

    Args:
        rows: The states, in the order of the network. Of equal ones the first is the best.
        correct: For each, [M] whether a validation sample is predicted correctly.
    """
    best = int(np.argmax([row.hits for row in rows]))
    return [
        replace(
            row,
            best=at == best,
            p=mcnemar_exact(int((own & ~correct[best]).sum()), int((~own & correct[best]).sum())),
        )
        for at, (row, own) in enumerate(zip(rows, correct, strict=True))
    ]


def advise(rows: Sequence[Probed], significance: float) -> Advice:
    """Return the layer to train from: the one after the first state that suffices.

    A state suffices if the paired test finds no difference from the best one.

    Args:
        rows: The states with their comparisons, in the order of the network.
        significance: The p-value below which two states differ.
    """
    best = next(row for row in rows if row.best)
    first = next(row for row in rows if row.p >= significance)
    named = f"the state after {first.after} ({first.pooling}, accuracy {first.acc:.4f})"
    if first.best:
        why = f"{named} is the best one"
        why += "" if first is rows[0] else ", and every earlier state is worse"
    else:
        why = (
            f"{named} is the first one without a significant difference from the best state, which "
            f"is after {best.after} ({best.pooling}, {best.acc:.4f}; p = {first.p:.2g})"
        )
    effect = (
        "no layer comes after it: train the head alone, and compare it with "
        "callbacks.unfreezing.last_blocks=1, as a probe cannot tell what a block gains by training"
        if first.start_layer is None
        else f"the layers from {first.start_layer} on add nothing that a linear head can use, so "
        f"they are the ones to train"
    )
    return Advice(first.start_layer, first.after, first.pooling, f"{why}; {effect}")
