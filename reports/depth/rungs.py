"""How the rungs of a ladder are compared: the same for a ladder and for a sweep over its rungs."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import numpy.typing as npt

from reports.statistics import mcnemar_exact, smallest_difference, wilson_interval
from reports.tables import check_columns, read_parquet
from run_folders.run_folder import RunFolder

Correct = npt.NDArray[np.bool_]


@dataclass(frozen=True)
class TrainedRung:
    """A rung that was trained.

    Attributes:
        name: `head`, the number of last blocks that train, or `all`.
        start_layer: First layer that trains; None for the head alone, `all` for all layers.
        folder: Name of its run folder in that of the ladder.
        trainable: Number of trainable parameters.
        seconds: Duration of its training and of the features that it computed.
        hits: Validation samples that it predicts correctly.
        n: Number of validation samples.
        acc: Their share, 0..1.
        interval: 95 % Wilson interval of the accuracy.
        compared_with: The rung that it was compared with; None for the first.
        p: p-value of McNemar's exact test against that rung.
        detectable: The smallest difference of accuracy that this test finds among as many samples
            on which the two differ; None if it finds none.
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
    compared_with: str | None = None
    p: float | None = None
    detectable: float | None = None
    better: bool = True


def read_rung(name: str, folder: Path, ladder: Path) -> tuple[TrainedRung, Correct]:
    """Read a finished run as a rung that is not compared yet.

    Args:
        name: Its name.
        folder: Its run folder.
        ladder: The folder of the ladder or sweep.

    Returns:
        The rung, and [N] whether each validation sample is predicted correctly, by index.
    """
    run = RunFolder(folder)
    metrics, path = run.read_json("metrics.json"), run.predictions_of("val")
    stages = run.read_json("plan.json")["stages"]
    table = read_parquet(path)
    check_columns(path, table, {"index": int, "label": str, "prediction": str})
    table = table.sort_values("index")
    correct = np.asarray(table["label"] == table["prediction"])
    spent = [metrics["seconds"].get(part) or 0.0 for part in ("fit", "features")]
    hits, count = int(correct.sum()), len(correct)
    row = TrainedRung(
        name=name,
        start_layer=stages[-1]["start_layer"] if stages else None,
        folder=folder.relative_to(ladder).as_posix(),
        trainable=metrics["parameters"]["trainable"],
        seconds=round(sum(spent), 3),
        hits=hits,
        n=count,
        acc=hits / count,
        interval=wilson_interval(hits, count),
    )
    return row, correct


def compared(
    row: TrainedRung,
    correct: npt.NDArray[np.bool_],
    below: TrainedRung,
    correct_below: npt.NDArray[np.bool_],
    significance: float,
) -> TrainedRung:
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
    detectable = smallest_difference(gained + lost, len(correct), significance)
    better = p < significance and gained > lost
    return replace(row, compared_with=below.name, p=p, detectable=detectable, better=better)


def compare_rungs(
    rungs: Sequence[tuple[TrainedRung, Correct]], significance: float
) -> tuple[list[TrainedRung], int]:
    """Compare trained rungs in order: each with the last one that was better than those before.

    Args:
        rungs: The rungs, from the head on, with which validation samples they predict correctly.
        significance: The p-value below which two rungs differ.

    Returns:
        The compared rungs, and the index of the chosen one: no later rung is better than it.
    """
    rows, best = [rungs[0][0]], 0
    for at, (row, correct) in enumerate(rungs[1:], start=1):
        found = compared(row, correct, *rungs[best], significance)
        rows.append(found)
        best = at if found.better else best
    return rows, best
