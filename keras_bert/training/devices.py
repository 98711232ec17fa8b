"""Devices, seeds and precision of a run, and whether XLA compiles its steps."""

from collections.abc import Iterator
from contextlib import contextmanager

import keras
import tensorflow as tf

from keras_bert.data.batching import Padding
from keras_bert.loading import precision
from keras_bert.settings import TrainingSettings

MULTIPLE, _XLA_MULTIPLE = 8, 32  # padded lengths are multiples of these, in tokens


@contextmanager
def devices(settings: TrainingSettings) -> Iterator[tf.distribute.Strategy]:
    """Set the seeds, determinism, precision and distribution strategy from the settings."""
    keras.utils.clear_session()
    if settings.deterministic:
        tf.config.experimental.enable_op_determinism()
    keras.utils.set_random_seed(settings.seed)
    gpus = tf.config.list_logical_devices("GPU")
    strategy = tf.distribute.get_strategy()
    if settings.strategy == "mirrored":
        strategy = tf.distribute.MirroredStrategy(gpus or tf.config.list_logical_devices("CPU"))
    replicas = strategy.num_replicas_in_sync
    if settings.batch_size % replicas:
        settings.raise_invalid_option("batch_size", f"give a multiple of the {replicas} devices")
    with precision(settings.precision), strategy.scope():
        yield strategy


def uses_xla(settings: TrainingSettings) -> bool:
    """Return whether XLA compiles the steps.

    `jit=auto` uses XLA on a GPU only, because XLA is slower than TensorFlow's own kernels on a CPU.
    Keras does not use XLA for deterministic operations or with several devices.
    """
    possible = not settings.deterministic and settings.strategy == "none"
    return settings.jit == "on" or (
        settings.jit == "auto" and possible and bool(tf.config.list_physical_devices("GPU"))
    )


def padding_of(settings: TrainingSettings, maxlen: int) -> Padding:
    """Return the padding rule of a run.

    XLA compiles once per padded length, so with XLA there are fewer different lengths.
    """
    return Padding(_XLA_MULTIPLE if uses_xla(settings) else MULTIPLE, maxlen)
