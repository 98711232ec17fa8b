"""Errors about losses."""

import torch
from torch import Tensor, nn

from run_folders.errors import UserError, brief


class NonFiniteLossError(UserError, ArithmeticError):
    """A loss became NaN or infinite."""


class LossError(UserError, ValueError):
    """A loss that a task cannot use."""


def try_loss(loss: nn.Module, logits: Tensor, labels: Tensor) -> None:
    """Compute a loss once, before training.

    Raises:
        LossError: If the loss rejects logits and labels of these shapes, or returns no scalar.
    """
    name, shapes = type(loss).__name__, f"logits {[*logits.shape]} and labels {[*labels.shape]}"
    try:
        with torch.no_grad():
            value = loss(logits, labels)
    except Exception as error:  # whatever a loss of another package raises
        msg = f"model.loss: {name} fails for {shapes}: {brief(error)}; choose another loss"
        raise LossError(msg) from error
    if not isinstance(value, Tensor) or value.ndim:
        shape = [*value.shape] if isinstance(value, Tensor) else type(value).__name__
        msg = f"model.loss: {name} returns {shape} for {shapes}; a scalar mean is needed"
        raise LossError(msg)
