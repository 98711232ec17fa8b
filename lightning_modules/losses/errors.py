"""Errors about losses."""

from run_folders.errors import UserError


class NonFiniteLossError(UserError, ArithmeticError):
    """A loss became NaN or infinite."""


class LossError(UserError, ValueError):
    """A loss that a task cannot use."""
