"""Learning-rate schedule and AdamW optimizer."""

from collections.abc import Sequence
from typing import Any

import keras
import tensorflow as tf
from keras import ops


@keras.saving.register_keras_serializable(package="keras_bert")
class WarmupLinearDecay(keras.optimizers.schedules.LearningRateSchedule):
    """Linear warm-up to the peak, then linear decay to 0 at the end of the run."""

    def __init__(self, peak: float, total_steps: int, warmup_steps: int) -> None:
        """Store the parameters of the schedule.

        Args:
            peak: The highest learning rate.
            total_steps: Steps of the whole run.
            warmup_steps: Steps before the peak; the rate of the first step is already above 0.
        """
        super().__init__()
        self.peak, self.total_steps, self.warmup_steps = peak, total_steps, warmup_steps

    def __call__(self, step: Any) -> Any:  # noqa: ANN401 - a number or a tensor
        """Return the learning rate of a step; steps count from 0."""
        step = ops.cast(step, "float32")
        rising = (step + 1) / (self.warmup_steps + 1)
        falling = (self.total_steps - step) / max(1, self.total_steps - self.warmup_steps)
        return self.peak * ops.maximum(0.0, ops.where(step < self.warmup_steps, rising, falling))

    def get_config(self) -> dict[str, Any]:
        """Return the arguments of the constructor."""
        return {
            "peak": self.peak,
            "total_steps": self.total_steps,
            "warmup_steps": self.warmup_steps,
        }


_NOT_DECAYED = {"bias", "gamma", "beta"}


class BertAdamW(keras.optimizers.Adam):
    """AdamW (Loshchilov & Hutter 2019, arXiv 1711.05101) with decay of matrices and tables only.

    Biases and the parameters of LayerNorm are not decayed. The other differences from Keras's AdamW
    are:

    - Some variables can have a different learning rate.
    - Gradients of embedding tables are made dense before clipping. A sparse gradient can list a row
      several times, and its norm differs from the norm of the summed rows.
    - Gradients are summed over replicas before clipping. Several devices thus take the same step as
      one device.
    """

    def __init__(
        self,
        schedule: keras.optimizers.schedules.LearningRateSchedule,
        weight_decay: float,
        clip: float,
        scaled: Sequence[keras.Variable] = (),
        factor: float = 1.0,
    ) -> None:
        """Store the hyperparameters.

        Args:
            schedule: Maps a step to its learning rate.
            weight_decay: Each step subtracts weight_decay * learning rate * weight.
            clip: Maximum global norm of the gradients.
            scaled: Variables with a different learning rate.
            factor: Factor on the schedule's learning rate for the `scaled` variables.
        """
        super().__init__(schedule, epsilon=1e-8, name="adamw")
        self.schedule = schedule
        self.rate_of_decay, self.clip, self.factor = weight_decay, clip, factor
        self._scaled = {self._var_key(variable) for variable in scaled}
        self._decayed: set[Any] = set()

    def build(self, variables: Sequence[keras.Variable]) -> None:
        """Create the moments, and select the variables to decay.

        The selection is by name, because a GRU's bias is a matrix of two rows.
        """
        self._decayed = {
            self._var_key(variable) for variable in variables if variable.name not in _NOT_DECAYED
        }
        super().build(variables)

    def apply(
        self, grads: Sequence[Any], trainable_variables: Sequence[keras.Variable] | None = None
    ) -> None:
        """Apply the gradients; see Keras."""
        super().apply([tf.convert_to_tensor(grad) for grad in grads], trainable_variables)

    def _all_reduce_sum_gradients(
        self, grads_and_vars: Sequence[tuple[Any, Any]]
    ) -> list[tuple[Any, Any]]:
        """Sum over replicas, then clip. Keras would clip before the sum."""
        grads, variables = zip(*super()._all_reduce_sum_gradients(grads_and_vars), strict=True)
        return list(zip(tf.clip_by_global_norm(grads, self.clip)[0], variables, strict=True))

    def update_step(self, gradient: Any, variable: Any, learning_rate: Any) -> None:  # noqa: ANN401
        """Decay the variable, then take Adam's step in one fused operation.

        Keras's Adam consists of about a dozen operations, each of which reads all weights.
        """
        rate = tf.cast(learning_rate, variable.dtype)
        if self._var_key(variable) in self._scaled:
            rate *= self.factor
        if self.rate_of_decay and self._var_key(variable) in self._decayed:
            self.assign_sub(variable, variable * (rate * self.rate_of_decay))
        step = tf.cast(self.iterations + 1, variable.dtype)
        index = self._get_variable_index(variable)
        tf.raw_ops.ResourceApplyAdam(
            var=_handle(variable),
            m=_handle(self._momentums[index]),
            v=_handle(self._velocities[index]),
            beta1_power=tf.pow(tf.cast(self.beta_1, variable.dtype), step),
            beta2_power=tf.pow(tf.cast(self.beta_2, variable.dtype), step),
            lr=rate,
            beta1=self.beta_1,
            beta2=self.beta_2,
            epsilon=self.epsilon,
            grad=tf.cast(gradient, variable.dtype),
        )


def _handle(variable: Any) -> Any:  # noqa: ANN401 - a Keras variable, or TensorFlow's on a replica
    return (variable.value if isinstance(variable, keras.Variable) else variable).handle
