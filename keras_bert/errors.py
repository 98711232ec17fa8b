"""What a user can mend is said in one line."""

from run_folders.errors import UserError


class KerasBertError(UserError, ValueError):
    """Something that was asked for cannot be done; the message says what, where, and what to do next."""
