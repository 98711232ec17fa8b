"""`depth=labels`: heads on ever more labels, and what twice as many would bring."""

import sys
import time
from collections.abc import Sequence
from typing import Annotated, Any

import numpy as np
import numpy.typing as npt
from annotated_types import Ge
from rich.table import Table

from engine.config.errors import ConfigError
from engine.depth.power_law import extrapolate, fit_power_law
from engine.depth.states import States, stored_states
from engine.depth.study import DEPTH, DepthStudy, StudyRequest, write_study_metrics
from engine.processes.terminal import console
from lightning_modules.networks.dividing.layer_states import PooledState
from lightning_modules.networks.linear_probe import fit_probe
from run_folders.signatures.checking import check_arguments

SHARES = tuple(range(10, 101, 10))  # per cent of train
_FITTED = 60  # per cent of train that the checked law is fitted to
_FEWEST = 5  # labels of the smallest part


class MoreLabels(DepthStudy):
    """Fits linear heads to 10 to 100 % of train on the features of the frozen backbone.

    The parts are nested: each draw orders the training samples once. A power law is fitted to the
    parts up to 60 % and checked on the others. The law of all parts predicts twice the labels.
    """

    def __init__(self, draws: Annotated[int, Ge(2)] = 5) -> None:
        """Store the setting.

        Args:
            draws: Number of random orders of the training samples.
        """
        check_arguments(MoreLabels, locals())
        self.draws = draws

    def run(self, request: StudyRequest) -> float:
        """Fit all heads, write depth.json and metrics.json."""
        request.folder.write_status("running", "features")
        states = stored_states(request, [])
        request.folder.write_status("running", "fit")
        start = time.perf_counter()
        total, seed = len(states.labels["train"]), int(request.cfg.seed)
        sizes = [round(total * share / 100) for share in SHARES]
        if sizes[0] < _FEWEST:
            msg = f"depth=labels: train has {total} samples; at least {10 * _FEWEST} are needed"
            raise ConfigError(msg)
        classes = len(request.class_names)
        state, loss = _best_state(states, classes)
        accuracies = np.asarray(
            [_accuracies(states, state, sizes, classes, (seed, draw)) for draw in range(self.draws)]
        ).T
        law = _checked_law(sizes, accuracies)
        counts = np.asarray(sizes, dtype=float)
        validation = len(states.labels["val"])
        acc, low, high = extrapolate(counts, accuracies, validation, 2 * total, seed)
        fit = time.perf_counter() - start
        seconds = {"states": states.seconds, "heads": fit}
        record = {
            "study": "labels",
            "samples": {"train": total, "val": validation},
            "seconds": {name: round(value, 3) for name, value in seconds.items()},
            "pooling": state.pooling,
            "parts": [
                {"n": size, "acc": row.tolist()}
                for size, row in zip(sizes, accuracies, strict=True)
            ],
            "law": law,
            "twice": {"n": 2 * total, "acc": acc, "low": low, "high": high},
        }
        request.folder.write_json(DEPTH, record)
        now = float(accuracies[-1].mean())
        write_study_metrics(request, {"acc": now, "loss": loss}, features=states.seconds, fit=fit)
        _print(record, sum(seconds.values()))
        return now


def _best_state(states: States, classes: int) -> tuple[PooledState, float]:
    """Return the pooling whose head has the least loss on validation with all labels."""
    labels = states.labels
    losses = {
        state: fit_probe(
            (values["train"], labels["train"]), (values["val"], labels["val"]), classes
        ).loss
        for state, values in states.values.items()
    }
    best = min(losses, key=lambda state: losses[state])
    return best, losses[best]


def _accuracies(
    states: States, state: PooledState, sizes: Sequence[int], classes: int, seed: tuple[int, int]
) -> list[float]:
    """Return the accuracy on validation for nested parts of one random order of train."""
    values, labels = states.values[state], states.labels
    order = np.random.default_rng(seed).permutation(len(labels["train"]))
    found = []
    for size in sizes:
        part = np.sort(order[:size])
        train = values["train"][part], labels["train"][part]
        probe = fit_probe(train, (values["val"], labels["val"]), classes)
        found.append(float((probe.probabilities.argmax(1) == labels["val"]).mean()))
    return found


def _checked_law(sizes: Sequence[int], accuracies: npt.NDArray[np.float64]) -> dict[str, Any]:
    """Return the law of the smaller parts, and how far it is off on the larger ones."""
    counts, means = np.asarray(sizes, dtype=float), accuracies.mean(axis=1)
    known = np.asarray(SHARES) <= _FITTED
    law = fit_power_law(counts[known], means[known])
    off = law(counts[~known]) - means[~known]
    whole = fit_power_law(counts, means)
    return {
        "fitted_to": int(counts[known][-1]),
        "largest_error": float(np.abs(off).max()),
        "limit": whole.limit,
        "scale": whole.scale,
        "exponent": whole.exponent,
    }


def _print(record: dict[str, Any], seconds: float) -> None:
    """Print the accuracy of each part, and the prediction."""
    shown = console(width=None if sys.stdout.isatty() else 120)
    table = Table("labels", "mean acc", "least", "most")
    for part in record["parts"]:
        low, high, mean = min(part["acc"]), max(part["acc"]), float(np.mean(part["acc"]))
        table.add_row(f"{part['n']:,}", f"{mean:.4f}", f"{low:.4f}", f"{high:.4f}")
    shown.print(table)
    twice, law = record["twice"], record["law"]
    shown.print(
        f"twice the labels ({twice['n']:,}): {twice['acc']:.4f} "
        f"({twice['low']:.4f} to {twice['high']:.4f})",
        highlight=False,
    )
    shown.print(
        f"the law of the parts up to {law['fitted_to']:,} labels is off by "
        f"{law['largest_error']:.4f} at most on the others",
        highlight=False,
    )
    shown.print(f"{seconds:.1f} seconds", highlight=False)
