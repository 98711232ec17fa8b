"""The error of a network that cannot be divided."""

from run_folders.errors import UserError


class CannotDivideError(UserError, ValueError):
    """A network cannot run from a layer on; the message is the reason."""
