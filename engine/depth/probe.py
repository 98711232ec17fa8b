"""`depth=probe`: a linear probe on the state after each block, and the layer to train from."""

import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import Annotated

import numpy as np
import numpy.typing as npt
import pandas as pd
from annotated_types import Ge, Interval
from rich.table import Table

from engine.depth.advice import INPUT_LAYERS, Advice, Probed, advise, compare_with_best
from engine.depth.states import States, stored_states
from engine.depth.study import DEPTH, DepthStudy, StudyRequest, write_study_metrics
from engine.processes.terminal import console
from engine.results import write_parquet
from lightning_modules.networks.dividing.layer_states import PooledState
from lightning_modules.networks.freezing.blocks import blocks_of
from lightning_modules.networks.linear_probe import FittedProbe, fit_probe
from reports.statistics import wilson_interval
from run_folders.signatures.checking import check_arguments


class LayerProbe(DepthStudy):
    """Fits a linear probe to the pooled state after each block of the frozen backbone.

    The first state that validation cannot tell from the best one has all that a linear head can
    use. The blocks after it are the ones to train (compare Alain & Bengio 2016, arXiv 1610.01644).
    """

    def __init__(
        self,
        samples: Annotated[int, Ge(2)] | None = None,
        significance: Annotated[float, Interval(gt=0, lt=1)] = 0.05,
    ) -> None:
        """Store the settings.

        Args:
            samples: Number of training samples to fit the probes with, drawn with the seed; None
                for all.
            significance: Two states differ if the p-value of the paired test is below it.
        """
        check_arguments(LayerProbe, locals())
        self.samples, self.significance = samples, significance

    def run(self, request: StudyRequest) -> float:
        """Probe all states, write depth.json, metrics.json and the validation predictions."""
        encoder, folder = request.encoder, request.folder
        folder.write_status("running", "features")
        blocks = blocks_of(encoder.model, encoder.record())
        states = stored_states(request, [block.layer for block in blocks])
        folder.write_status("running", "fit")
        start = time.perf_counter()
        names = request.class_names
        chosen = _chosen(len(states.labels["train"]), self.samples, request.cfg.seed)
        fitted = fit_all(states, chosen, len(names))
        rows = compare_with_best(*_rows(fitted, states, [block.layer for block in blocks]))
        advice = advise(rows, self.significance)
        fit = time.perf_counter() - start
        seconds = {"states": states.seconds, "probes": fit}
        record = {
            "study": "probe",
            "samples": {"train": len(chosen), "val": len(states.labels["val"])},
            "significance": self.significance,
            "states": [asdict(row) for row in rows],
            "advice": asdict(advice),
            "seconds": {name: round(value, 3) for name, value in seconds.items()},
        }
        folder.write_json(DEPTH, record)
        at, best = next((i, row) for i, row in enumerate(rows) if row.best)
        predictions = _predictions(list(fitted.values())[at], states, names)
        write_parquet(predictions, folder.predictions_of("val"))
        val = {"acc": best.acc, "loss": best.loss}
        write_study_metrics(request, val, features=states.seconds, fit=fit)
        _print(rows, advice, sum(seconds.values()))
        return best.acc


def fit_all(
    states: States, chosen: npt.NDArray[np.int64], num_classes: int
) -> dict[PooledState, FittedProbe]:
    """Fit a probe to each state, with the chosen training samples."""
    labels = states.labels
    return {
        state: fit_probe(
            (values["train"][chosen], labels["train"][chosen]),
            (values["val"], labels["val"]),
            num_classes,
        )
        for state, values in states.values.items()
    }


def _chosen(count: int, samples: int | None, seed: int) -> npt.NDArray[np.int64]:
    """Return the positions of the training samples that the probes are fitted with, ascending."""
    if samples is None or samples >= count:
        return np.arange(count)
    return np.sort(np.random.default_rng(seed).permutation(count)[:samples])


def _rows(
    fitted: Mapping[PooledState, FittedProbe], states: States, layers: Sequence[str]
) -> tuple[list[Probed], list[npt.NDArray[np.bool_]]]:
    """Return a row for each state, in the order of the network, and which samples are correct."""
    labels, rows, correct = states.labels["val"], [], []
    for state, probe in fitted.items():
        at = len(layers) if state.layer is None else layers.index(state.layer)
        correct.append(probe.probabilities.argmax(1) == labels)
        hits = int(correct[-1].sum())
        rows.append(
            Probed(
                after=layers[at - 1] if at else INPUT_LAYERS,
                start_layer=state.layer,
                pooling=state.pooling,
                width=states.values[state]["val"].shape[1],
                hits=hits,
                acc=hits / len(labels),
                interval=wilson_interval(hits, len(labels)),
                loss=probe.loss,
                penalty=probe.penalty,
            )
        )
    return rows, correct


def _predictions(probe: FittedProbe, states: States, names: Sequence[str]) -> pd.DataFrame:
    """Return index, label, prediction and probabilities of the validation samples."""
    named = np.asarray(names, dtype=object)
    table = {
        "index": states.indices,
        "label": named[states.labels["val"]],
        "prediction": named[probe.probabilities.argmax(1)],
        **{f"probability_{name}": probe.probabilities[:, k] for k, name in enumerate(names)},
    }
    return pd.DataFrame(table).sort_values("index", ignore_index=True)


def _print(rows: Sequence[Probed], advice: Advice, seconds: float) -> None:
    """Print the accuracy of each state, and the advice."""
    shown = console(width=None if sys.stdout.isatty() else 120)
    table = Table("after", "pooling", "acc", "95 % interval", "p against the best")
    for row in rows:
        low, high = row.interval
        advised = (row.after, row.pooling) == (advice.after, advice.pooling)
        mark = " (advised)" * advised + " (best)" * row.best
        cells = [f"{row.acc:.4f}", f"{low:.4f} to {high:.4f}", f"{row.p:.2g}"]
        table.add_row(f"{row.after}{mark}", row.pooling, *cells)
    shown.print(table)
    start = "none: train the head alone" if advice.start_layer is None else advice.start_layer
    shown.print(f"advised start_layer: {start}", highlight=False)
    shown.print(f"why: {advice.why}", highlight=False)
    shown.print(f"{seconds:.1f} seconds", highlight=False)
