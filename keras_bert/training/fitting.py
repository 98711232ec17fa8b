"""The training loop: steps, epochs, the row of each epoch, and resuming."""

import math
import sys
import time
from typing import Any

import keras

from keras_bert.errors import KerasBertError
from keras_bert.run_folder import KerasRunFolder
from keras_bert.settings import TrainingSettings
from keras_bert.training.devices import uses_xla
from keras_bert.training.fit_record import KIND, best_epoch
from keras_bert.training.logs import RowLogger
from keras_bert.training.optimization import BertAdamW, WarmupLinearDecay
from keras_bert.training.state import State
from keras_bert.training.trainable import TrainableModel, TrainingPlan
from run_folders.kinds import log_line


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
        line = f"epoch {epoch} of {self.settings.epochs}: {log_line(row, KIND)}, {seconds:.1f} s"
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


def _require_finite(which: str, loss: float, epoch: int) -> None:
    if not math.isfinite(loss):
        msg = (
            f"the {which} loss became {loss} in epoch {epoch}: "
            "lower the learning rate (--lr) or raise --warmup"
        )
        raise KerasBertError(msg)
