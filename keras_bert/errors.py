"""The error that this package raises for faults that the user can fix."""

from run_folders.errors import UserError


class KerasBertError(UserError, ValueError):
    """Error that the user can fix: the message says what is wrong, where, and what to do next."""
