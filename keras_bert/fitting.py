"""One training: steps, epochs, the record of each, and going on from the last."""

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
from keras_bert.optimization import BertAdamW, WarmupLinearDecay
from keras_bert.run_folder import KerasRunFolder
from keras_bert.settings import TrainingSettings
from keras_bert.state import State

Metrics = dict[str, Any]


class Sums(NamedTuple):
    """A metric of a batch, or of the part of it that a replica has, so that the metrics of many make an exact mean.

    Attributes:
        total: Sum.
        count: How many it is of.
        share: Of a loss, what it adds to the mean of the whole batch.
    """

    total: Any
    count: Any
    share: Any = None


Measure = Callable[[Any, Any], Mapping[str, Sums]]


Sink = Callable[[Mapping[str, Any]], None]  # takes a row of history.csv


@dataclass(frozen=True)
class Job:
    """What differs between one kind of training and another.

    Attributes:
        network: What is trained, saved and loaded.
        measure: (targets, outputs) -> metrics of the batch; those that have a share are minimised
            together.
        names: Of these metrics, `loss` among them.
        batches: First epoch -> tensors of that epoch and all behind it.
        steps: Batches an epoch.
        texts: Texts an epoch.
        padding_share: Share of padding among their tokens in batches, 0..1.
        validate: Model -> metrics of the validation split.
        monitor, mode: Which of `val/...` chooses the epoch, and whether min or max of it is better.
        lrs: Highest learning rate of `features`, None where they are frozen, and of `head`.
        head: Variables of the head.
    """

    network: keras.Model
    measure: Measure
    names: tuple[str, ...]
    batches: Callable[[int], tf.data.Dataset]
    steps: int
    texts: int
    padding_share: float
    validate: Callable[["Trained"], Metrics]
    monitor: str
    mode: str
    lrs: dict[str, float | None]
    head: list[keras.Variable]


class Trained(keras.Model):
    """A network with its loss. The network itself is never compiled, so that a saved one holds the weights and nothing else."""

    def __init__(self, job: Job) -> None:
        super().__init__()
        self.network, self.measure = job.network, job.measure
        self.means = {name: keras.metrics.Mean(name=name) for name in job.names}
        self.built = True

    def call(self, inputs: Any, training: bool | None = None) -> Any:  # noqa: ANN401, FBT001 - Keras's signature
        """What the network gives."""
        return self.network(inputs, training=training)

    def compute_loss(
        self,
        x: Any = None,  # noqa: ANN401, ARG002
        y: Any = None,  # noqa: ANN401
        y_pred: Any = None,  # noqa: ANN401
        sample_weight: Any = None,  # noqa: ANN401, ARG002
        training: bool = True,  # noqa: FBT001, FBT002, ARG002
    ) -> Any:  # noqa: ANN401
        """Sum of the batch's mean losses; what replicas give adds up to what one device would."""
        metrics = self.measure(y, y_pred)
        for name, (total, count, _) in metrics.items():
            self.means[name].update_state(tf.math.divide_no_nan(total, count), sample_weight=count)
        return tf.add_n([sums.share for sums in metrics.values() if sums.share is not None])

    def _maybe_symbolic_build(self, iterator: Any = None, data_batch: Any = None) -> None:  # noqa: ANN401
        """Nothing is left to build. Keras would take a batch, and average it over replicas, to see its shapes."""

    def metrics(self) -> Metrics:
        """Means since the last reset, and n, the number that the loss rests on."""
        metrics = {
            name: float(keras.ops.convert_to_numpy(mean.result()))
            for name, mean in self.means.items()
        }
        return {**metrics, "n": round(float(keras.ops.convert_to_numpy(self.means["loss"].count)))}


def fit(job: Job, settings: TrainingSettings, folder: KerasRunFolder, sinks: list[Sink]) -> None:
    """Train, epoch for epoch; from the last one that was finished, where the folder has one.

    Args:
        job: What to train.
        settings: How.
        folder: Where the record goes: history.csv, checkpoints/best.keras and last.npz.
        sinks: Where each epoch's metrics go too.

    Raises:
        KerasBertError: If the loss is no number any more, or the checkpoint does not fit.
    """
    epochs, total = settings.epochs, job.steps * settings.epochs
    peaks = {name: lr for name, lr in job.lrs.items() if lr is not None}
    schedule = WarmupLinearDecay(next(iter(peaks.values())), total, int(settings.warmup * total))
    factor = peaks["head"] / schedule.peak
    optimizer = BertAdamW(schedule, settings.weight_decay, settings.clip, job.head, factor)
    model = Trained(job)
    model.compile(optimizer=optimizer, jit_compile=uses_xla(settings))
    optimizer.build(job.network.trainable_variables)
    state = State(job.network, optimizer, folder)
    first = state.restore()
    record = _EpochRecord(job, settings, folder, state, sinks, first)
    if first < epochs and not record.has_waited_enough():
        model.fit(
            job.batches(first),
            initial_epoch=first,
            epochs=epochs,
            steps_per_epoch=job.steps,
            callbacks=[record],
            shuffle=False,
            verbose="auto" if sys.stdout.isatty() else 0,
        )


class _EpochRecord(keras.callbacks.Callback):
    """Behind each epoch: validation, a row of history.csv, the best weights, the state to go on from."""

    def __init__(
        self,
        job: Job,
        settings: TrainingSettings,
        folder: KerasRunFolder,
        state: State,
        sinks: list[Sink],
        first: int,
    ) -> None:
        super().__init__()
        self.job, self.settings, self.folder, self.state, self.sinks = (
            job,
            settings,
            folder,
            state,
            sinks,
        )
        self.rows = [row for row in folder.read_history() if int(row["epoch"]) < first]

    def on_epoch_begin(self, epoch: int, logs: Any = None) -> None:  # noqa: ANN401, ARG002
        self.began = time.perf_counter()

    def on_epoch_end(self, epoch: int, logs: Any = None) -> None:  # noqa: ANN401, ARG002
        train = self.model.metrics()
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
        for sink in self.sinks:
            sink(row)
        shown = " ".join(
            f"{name} {row[name]:.4f}"
            for name in ("train/loss", "train/acc", "val/loss", "val/acc")
            if name in row
        )
        print(f"epoch {epoch} of {self.settings.epochs}: {shown}, {seconds:.1f} s", flush=True)
        if self.has_waited_enough():
            print(
                f"stopped early: no better {self.job.monitor} for {self.settings.patience} epochs",
                flush=True,
            )
            self.model.stop_training = True

    def has_waited_enough(self) -> bool:
        """Whether the last epochs, as many as `patience`, brought no better metric; told from the rows alone."""
        if not self.rows or not self.settings.patience:
            return False
        waited = int(self.rows[-1]["epoch"]) - best_epoch(
            self.rows, self.job.monitor, self.job.mode
        )
        return waited >= self.settings.patience

    def _steps(self) -> int:
        return int(keras.ops.convert_to_numpy(self.model.optimizer.iterations))

    def _lrs(self) -> dict[str, float | None]:
        """Learning rates of the epoch's last step."""
        rate = float(
            self.model.optimizer.schedule(self._steps() - 1)
        )  # `learning_rate` is the next step's
        peak = next(lr for lr in self.job.lrs.values() if lr is not None)
        return {name: None if lr is None else rate * lr / peak for name, lr in self.job.lrs.items()}


def uses_xla(settings: TrainingSettings) -> bool:
    """Whether XLA compiles the steps: on a GPU; on a CPU it is slower than TensorFlow's own kernels, and has to be asked for.

    Keras compiles neither what is to be deterministic nor what several devices share.
    """
    possible = not settings.deterministic and settings.strategy == "none"
    return settings.jit == "on" or (
        settings.jit == "auto" and possible and bool(tf.config.list_physical_devices("GPU"))
    )


def _require_finite(which: str, loss: float, epoch: int) -> None:
    if not math.isfinite(loss):
        msg = f"the {which} loss became {loss} in epoch {epoch}: lower the learning rate (--lr) or raise --warmup"
        raise KerasBertError(msg)


def best_epoch(rows: list[dict[str, str]], monitor: str, mode: str) -> int:
    """The epoch with the best metric, the first of equals."""
    choose = min if mode == "min" else max
    return int(choose(rows, key=lambda row: float(row[monitor]))["epoch"])


def fit_record(rows: list[dict[str, str]], job: Job) -> dict[str, Any]:
    """What metrics.json says of the training: best epoch, its validation metrics, parameters, seconds."""
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
        "val": val,
        "best": best,
        "parameters": count,
        "seconds": {
            "fit": fit_seconds,
            "test": None,
            "epoch_mean": round(sum(seconds) / len(seconds), 3),
        },
    }
