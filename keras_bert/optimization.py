"""Learning rates and AdamW."""

from collections.abc import Sequence
from typing import Any

import keras
import tensorflow as tf
from keras import ops


@keras.saving.register_keras_serializable(package="keras_bert")
class WarmupLinearDecay(keras.optimizers.schedules.LearningRateSchedule):
    """Rises in equal steps to the peak, then falls in equal steps to 0 at the end of the run."""

    def __init__(self, peak: float, total_steps: int, warmup_steps: int) -> None:
        """State the shape.

        Args:
            peak: The highest learning rate.
            total_steps: Steps of the whole run.
            warmup_steps: Steps before the peak; the first of them is not wasted on a rate of 0.
        """
        super().__init__()
        self.peak, self.total_steps, self.warmup_steps = peak, total_steps, warmup_steps

    def __call__(self, step: Any) -> Any:  # noqa: ANN401 - a number or a tensor
        """The rate of a step, counted from 0."""
        step = ops.cast(step, "float32")
        rising = (step + 1) / (self.warmup_steps + 1)
        falling = (self.total_steps - step) / max(1, self.total_steps - self.warmup_steps)
        return self.peak * ops.maximum(0.0, ops.where(step < self.warmup_steps, rising, falling))

    def get_config(self) -> dict[str, Any]:
        """What the constructor takes."""
        return {
            "peak": self.peak,
            "total_steps": self.total_steps,
            "warmup_steps": self.warmup_steps,
        }


_NOT_DECAYED = {"bias", "gamma", "beta"}


class BertAdamW(keras.optimizers.Adam):
    """AdamW (Loshchilov & Hutter 2019, arXiv 1711.05101) that decays matrices and tables, but no bias and no gain of a norm.

    Unlike Keras's own, some variables may have another learning rate; gradients of tables are dense
    before they are clipped, as the norm of a table's rows is not that of the parts they are summed
    from; and gradients are summed over replicas before they are clipped, so that several devices
    take the step of one.
    """

    def __init__(
        self, schedule: keras.optimizers.schedules.LearningRateSchedule, weight_decay: float, clip: float,
        scaled: Sequence[keras.Variable] = (), factor: float = 1.0,
    ) -> None:  # fmt: skip
        """State the constants.

        Args:
            schedule: Step -> learning rate.
            weight_decay: Times the learning rate and the weight, it is taken off each step.
            clip: Largest norm of all gradients together.
            scaled: Variables with a learning rate of their own.
            factor: Theirs is the schedule's times this.
        """
        super().__init__(schedule, epsilon=1e-8, name="adamw")
        self.schedule = schedule
        self.rate_of_decay, self.clip, self.factor = weight_decay, clip, factor
        self._scaled = {self._var_key(variable) for variable in scaled}
        self._decayed: set[Any] = set()

    def build(self, variables: Sequence[keras.Variable]) -> None:
        """Make the moments. A GRU's bias has two rows, so that what is decayed is told by name."""
        self._decayed = {
            self._var_key(variable) for variable in variables if variable.name not in _NOT_DECAYED
        }
        super().build(variables)

    def apply(
        self, grads: Sequence[Any], trainable_variables: Sequence[keras.Variable] | None = None
    ) -> None:
        """Take a step; see Keras."""
        super().apply([tf.convert_to_tensor(grad) for grad in grads], trainable_variables)

    def _all_reduce_sum_gradients(
        self, grads_and_vars: Sequence[tuple[Any, Any]]
    ) -> list[tuple[Any, Any]]:
        """Sum over replicas, then clip; Keras's own clipping comes before the sum."""
        grads, variables = zip(*super()._all_reduce_sum_gradients(grads_and_vars), strict=True)
        return list(zip(tf.clip_by_global_norm(grads, self.clip)[0], variables, strict=True))

    def update_step(self, gradient: Any, variable: Any, learning_rate: Any) -> None:  # noqa: ANN401
        """Decay the variable, then take Adam's step, as one operation: a dozen small ones read all weights a dozen times."""
        rate = tf.cast(learning_rate, variable.dtype)
        if self._var_key(variable) in self._scaled:
            rate *= self.factor
        if self.rate_of_decay and self._var_key(variable) in self._decayed:
            self.assign_sub(variable, variable * (rate * self.rate_of_decay))
        step = tf.cast(self.iterations + 1, variable.dtype)
        place = self._get_variable_index(variable)
        tf.raw_ops.ResourceApplyAdam(
            var=_handle(variable),
            m=_handle(self._momentums[place]),
            v=_handle(self._velocities[place]),
            beta1_power=tf.pow(tf.cast(self.beta_1, variable.dtype), step),
            beta2_power=tf.pow(tf.cast(self.beta_2, variable.dtype), step),
            lr=rate,
            beta1=self.beta_1,
            beta2=self.beta_2,
            epsilon=self.epsilon,
            grad=tf.cast(gradient, variable.dtype),
        )


def _handle(variable: Any) -> Any:  # noqa: ANN401 - of Keras, or one device's of TensorFlow
    return (variable.value if isinstance(variable, keras.Variable) else variable).handle
