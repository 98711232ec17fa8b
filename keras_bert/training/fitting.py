"""The training loop: steps, epochs, the record of each epoch, and resuming."""

import json
import math
import sys
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple

import keras
import numpy as np
import tensorflow as tf

from keras_bert.errors import KerasBertError
from keras_bert.run_folder import KerasRunFolder
from keras_bert.training.optimization import BertAdamW, WarmupLinearDecay
from keras_bert.training.settings import TrainingSettings
from keras_bert.training.state import State
from run_folders.kinds import log_line

Metrics = dict[str, Any]

_KIND = "classification"  # of texts, or of masked tokens


class MetricSums(NamedTuple):
    """Sum and count of a metric over a batch or over a replica's part of it.

    Adding sums and counts of several batches and replicas results in an exact mean.

    Attributes:
        total: Sum of the values.
        count: Number of values.
        share: For a loss, its contribution to the mean over the whole batch, which is minimised.
            None for other metrics.
    """

    total: Any
    count: Any
    share: Any = None


Measure = Callable[[Any, Any], Mapping[str, MetricSums]]


RowLogger = Callable[[Mapping[str, Any]], None]  # receives a row of history.csv


@dataclass(frozen=True)
class TrainingPlan:
    """The parts of training that differ between pretraining and fine-tuning.

    Attributes:
        network: The network to train, save and load.
        measure: Maps targets and outputs to the metrics of the batch. The training loss is the sum
            of the metrics that have a `share`.
        names: Names of these metrics, including `loss`.
        batches: Maps an epoch to the batches of that epoch and all later ones.
        steps: Batches per epoch.
        texts: Texts per epoch.
        padding_share: Fraction of padding among the tokens of an epoch, 0..1.
        validate: Maps a model to the metrics of the validation split.
        monitor: The metric that selects the best epoch, `val/...`.
        mode: `min` or `max`, the better direction of `monitor`.
        lrs: Highest learning rates of `features`, None if they are frozen, and of `head`.
        head: Variables of the head.
    """

    network: keras.Model
    measure: Measure
    names: tuple[str, ...]
    batches: Callable[[int], tf.data.Dataset]
    steps: int
    texts: int
    padding_share: float
    validate: Callable[["TrainableModel"], Metrics]
    monitor: str
    mode: str
    lrs: dict[str, float | None]
    head: list[keras.Variable]


class TrainableModel(keras.Model):
    """A network with its loss.

    The network itself is never compiled, so a saved network contains only weights.
    """

    def __init__(self, job: TrainingPlan) -> None:
        super().__init__()
        self.network, self.measure = job.network, job.measure
        self.means = {name: keras.metrics.Mean(name=name) for name in job.names}
        self.built = True

    def call(self, inputs: Any, training: bool | None = None) -> Any:  # noqa: ANN401, FBT001 - Keras's signature
        """Return the outputs of the network."""
        return self.network(inputs, training=training)

    def compute_loss(
        self,
        x: Any = None,  # noqa: ANN401, ARG002
        y: Any = None,  # noqa: ANN401
        y_pred: Any = None,  # noqa: ANN401
        sample_weight: Any = None,  # noqa: ANN401, ARG002
        training: bool = True,  # noqa: FBT001, FBT002, ARG002
    ) -> Any:  # noqa: ANN401
        """Return the sum of the mean losses of the batch.

        The results of all replicas add up to the result of a single device.
        """
        metrics = self.measure(y, y_pred)
        for name, (total, count, _) in metrics.items():
            self.means[name].update_state(tf.math.divide_no_nan(total, count), sample_weight=count)
        return tf.add_n([sums.share for sums in metrics.values() if sums.share is not None])

    def _maybe_symbolic_build(self, iterator: Any = None, data_batch: Any = None) -> None:  # noqa: ANN401
        """Do nothing, because the network is already built.

        Keras would consume a batch, and average it over replicas, to find out its shapes.
        """

    def epoch_metrics(self) -> Metrics:
        """Return the means since the last reset, and n, the number of values in the loss."""
        metrics = {
            name: float(keras.ops.convert_to_numpy(mean.result()))
            for name, mean in self.means.items()
        }
        return {**metrics, "n": round(float(keras.ops.convert_to_numpy(self.means["loss"].count)))}


def fit(
    job: TrainingPlan,
    settings: TrainingSettings,
    folder: KerasRunFolder,
    row_loggers: list[RowLogger],
) -> None:
    """Train a network; if the folder has a checkpoint, resume after its epoch.

    Args:
        job: The network, its data and its loss.
        settings: The options of the command.
        folder: The run folder, for history.csv, checkpoints/best.keras and checkpoints/last.npz.
        row_loggers: Functions that also receive the metrics of each epoch.

    Raises:
        KerasBertError: If the loss is not finite, or if the checkpoint does not fit the network.
    """
    epochs, total = settings.epochs, job.steps * settings.epochs
    peaks = {name: lr for name, lr in job.lrs.items() if lr is not None}
    schedule = WarmupLinearDecay(next(iter(peaks.values())), total, int(settings.warmup * total))
    factor = peaks["head"] / schedule.peak
    optimizer = BertAdamW(schedule, settings.weight_decay, settings.clip, job.head, factor)
    model = TrainableModel(job)
    model.compile(optimizer=optimizer, jit_compile=uses_xla(settings))
    optimizer.build(job.network.trainable_variables)
    state = State(job.network, optimizer, folder)
    first = state.restore()
    callback = _EpochCallback(job, settings, folder, state, row_loggers, first)
    if first < epochs and not callback.is_patience_exhausted():
        model.fit(
            job.batches(first),
            initial_epoch=first,
            epochs=epochs,
            steps_per_epoch=job.steps,
            callbacks=[callback],
            shuffle=False,
            verbose="auto" if sys.stdout.isatty() else 0,
        )


class _EpochCallback(keras.callbacks.Callback):
    """After each epoch, validate, write history.csv, and save the best network and the state."""

    def __init__(
        self,
        job: TrainingPlan,
        settings: TrainingSettings,
        folder: KerasRunFolder,
        state: State,
        row_loggers: list[RowLogger],
        first: int,
    ) -> None:
        super().__init__()
        self.job, self.settings, self.folder = job, settings, folder
        self.state, self.row_loggers = state, row_loggers
        self.rows = [row for row in folder.read_history() if int(row["epoch"]) < first]

    def on_epoch_begin(self, epoch: int, logs: Any = None) -> None:  # noqa: ANN401, ARG002
        self.began = time.perf_counter()

    def on_epoch_end(self, epoch: int, logs: Any = None) -> None:  # noqa: ANN401, ARG002
        train = self.model.epoch_metrics()
        trained = time.perf_counter() - self.began
        _require_finite("training", train["loss"], epoch)
        val = self.job.validate(self.model)
        _require_finite("validation", val["loss"], epoch)
        seconds = time.perf_counter() - self.began
        row: dict[str, Any] = {"epoch": epoch, "step": self._steps()}
        row |= {f"train/{name}": value for name, value in train.items()} | {
            f"val/{name}": value for name, value in val.items()
        }
        row |= {f"lr/{name}": "" if lr is None else lr for name, lr in self._lrs().items()}
        row |= {"seconds": round(seconds, 3), "train/seconds": round(trained, 3)}
        row["train/samples_per_second"] = round(self.job.texts / trained, 1)
        self.rows.append({key: "" if value is None else str(value) for key, value in row.items()})
        self.folder.write_history(self.rows)
        best = best_epoch(self.rows, self.job.monitor, self.job.mode)
        if best == epoch:
            self.folder.write_best(self.job.network)
        self.state.save(epoch)
        for log_row in self.row_loggers:
            log_row(row)
        line = f"epoch {epoch} of {self.settings.epochs}: {log_line(row, _KIND)}, {seconds:.1f} s"
        print(line, flush=True)
        if self.is_patience_exhausted():
            print(
                f"stopped early: no better {self.job.monitor} for {self.settings.patience} epochs",
                flush=True,
            )
            self.model.stop_training = True

    def is_patience_exhausted(self) -> bool:
        """Return whether the last `patience` epochs brought no better metric.

        Only the rows of history.csv matter, so a resumed run stops at the same epoch.
        """
        if not self.rows or not self.settings.patience:
            return False
        waited = int(self.rows[-1]["epoch"]) - best_epoch(
            self.rows, self.job.monitor, self.job.mode
        )
        return waited >= self.settings.patience

    def _steps(self) -> int:
        return int(keras.ops.convert_to_numpy(self.model.optimizer.iterations))

    def _lrs(self) -> dict[str, float | None]:
        """Return the learning rates of the last step of the epoch."""
        # The optimizer's `learning_rate` is that of the next step.
        rate = float(self.model.optimizer.schedule(self._steps() - 1))
        peak = next(lr for lr in self.job.lrs.values() if lr is not None)
        return {name: None if lr is None else rate * lr / peak for name, lr in self.job.lrs.items()}


def uses_xla(settings: TrainingSettings) -> bool:
    """Return whether XLA compiles the steps.

    `jit=auto` uses XLA on a GPU only, because XLA is slower than TensorFlow's own kernels on a CPU.
    Keras does not use XLA for deterministic operations or with several devices.
    """
    possible = not settings.deterministic and settings.strategy == "none"
    return settings.jit == "on" or (
        settings.jit == "auto" and possible and bool(tf.config.list_physical_devices("GPU"))
    )


def _require_finite(which: str, loss: float, epoch: int) -> None:
    if not math.isfinite(loss):
        msg = (
            f"the {which} loss became {loss} in epoch {epoch}: "
            "lower the learning rate (--lr) or raise --warmup"
        )
        raise KerasBertError(msg)


def best_epoch(rows: list[dict[str, str]], monitor: str, mode: str) -> int:
    """Return the epoch with the best metric; of equal epochs, the first."""
    choose = min if mode == "min" else max
    return int(choose(rows, key=lambda row: float(row[monitor]))["epoch"])


def fit_record(rows: list[dict[str, str]], job: TrainingPlan) -> dict[str, Any]:
    """Return the training part of metrics.json.

    It contains the best epoch, its validation metrics, the parameter counts and the seconds.
    """
    epoch = best_epoch(rows, job.monitor, job.mode)
    row = next(row for row in rows if int(row["epoch"]) == epoch)
    values = {
        key.removeprefix("val/"): value for key, value in row.items() if key.startswith("val/")
    }
    val = {key: json.loads(value) if value else None for key, value in values.items()}
    best = {
        "epoch": epoch,
        "monitor": job.monitor,
        "score": float(row[job.monitor]),
        "checkpoint": "checkpoints/best.keras",
    }
    count = {
        kind: sum(int(np.prod(variable.shape)) for variable in variables)
        for kind, variables in (
            ("total", job.network.weights),
            ("trainable", job.network.trainable_weights),
        )
    }
    seconds = [float(row["train/seconds"]) for row in rows]
    fit_seconds = round(sum(float(row["seconds"]) for row in rows), 3)
    return {
        "kind": _KIND,
        "val": val,
        "best": best,
        "parameters": count,
        "seconds": {
            "fit": fit_seconds,
            "test": None,
            "epoch_mean": round(sum(seconds) / len(seconds), 3),
        },
    }
