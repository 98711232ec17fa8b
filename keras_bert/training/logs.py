"""Logging to TensorBoard and Weights & Biases, in addition to history.csv."""

import os
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from typing import Any

import tensorflow as tf

from keras_bert.run_folder import KerasRunFolder
from keras_bert.settings import TrainingSettings

RowLogger = Callable[[Mapping[str, Any]], None]  # receives a row of history.csv


@contextmanager
def _tensorboard(folder: KerasRunFolder) -> Iterator[RowLogger]:
    writer = tf.summary.create_file_writer(str(folder.path / "tensorboard"))

    def write(row: Mapping[str, Any]) -> None:
        with writer.as_default(step=row["epoch"]):
            for name, value in row.items():
                if isinstance(value, float):
                    tf.summary.scalar(name, value)
        writer.flush()

    try:
        yield write
    finally:
        writer.close()


@contextmanager
def _wandb(folder: KerasRunFolder) -> Iterator[RowLogger]:
    import wandb

    defaults = {"project": "thaw", "name": folder.path.name, "dir": str(folder.path)}
    if not os.environ.get("WANDB_API_KEY"):
        defaults["mode"] = "offline"
    # An argument would replace what the environment says.
    unset = {k: value for k, value in defaults.items() if f"WANDB_{k.upper()}" not in os.environ}
    if "mode" in unset:
        print(
            "wandb: no API key, so this run is logged offline; upload it later with `wandb sync`",
            flush=True,
        )
    run = wandb.init(config=folder.read_config(), **unset)  # type: ignore[arg-type]

    def log(row: Mapping[str, Any]) -> None:
        run.log({name: value for name, value in row.items() if isinstance(value, int | float)})

    code = 1
    try:
        yield log
        code = 0
    finally:
        run.finish(exit_code=code)


@contextmanager
def open_loggers(settings: TrainingSettings, folder: KerasRunFolder) -> Iterator[list[RowLogger]]:
    """Open the loggers that the settings enable, and close them however training ends.

    Args:
        settings: The options `tensorboard` and `wandb`.
        folder: The run folder.

    Yields:
        Functions that log a row of history.csv.
    """
    with ExitStack() as stack:
        enabled = {_tensorboard: settings.tensorboard, _wandb: settings.wandb}
        yield [stack.enter_context(open_(folder)) for open_, on in enabled.items() if on]
