"""What a command trains: its network and loss, its batches, its validation."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple

import keras
import tensorflow as tf

Metrics = dict[str, Any]


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
