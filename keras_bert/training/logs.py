"""Logging to TensorBoard and Weights & Biases, in addition to history.csv."""

import os
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import tensorflow as tf

from keras_bert.run_folder import KerasRunFolder
from keras_bert.settings import TrainingSettings

RowLogger = Callable[[Mapping[str, Any]], None]  # receives a row of history.csv


def _tensorboard(folder: KerasRunFolder) -> RowLogger:
    writer = tf.summary.create_file_writer(str(folder.path / "tensorboard"))

    def write(row: Mapping[str, Any]) -> None:
        with writer.as_default(step=row["epoch"]):
            for name, value in row.items():
                if isinstance(value, float):
                    tf.summary.scalar(name, value)
        writer.flush()

    return write


@contextmanager
def open_loggers(settings: TrainingSettings, folder: KerasRunFolder) -> Iterator[list[RowLogger]]:
    """Open the loggers that the settings enable, and close them however training ends.

    Args:
        settings: The options `tensorboard` and `wandb`.
        folder: The run folder.

    Yields:
        Functions that log a row of history.csv.
    """
    row_loggers: list[RowLogger] = [_tensorboard(folder)] if settings.tensorboard else []
    if not settings.wandb:
        yield row_loggers
        return
    import wandb

    key = os.environ.get("WANDB_API_KEY")
    mode = os.environ.get("WANDB_MODE") or ("online" if key else "offline")
    if mode == "offline":
        print(
            "wandb: no API key, so this run is logged offline; upload it later with `wandb sync`",
            flush=True,
        )
    run = wandb.init(
        project="thaw",
        name=folder.path.name,
        dir=folder.path,
        config=folder.read_config(),
        mode=mode,  # type: ignore[arg-type]
    )

    def log(row: Mapping[str, Any]) -> None:
        run.log({name: value for name, value in row.items() if isinstance(value, int | float)})

    code = 1
    try:
        yield [*row_loggers, log]
        code = 0
    finally:
        run.finish(exit_code=code)
