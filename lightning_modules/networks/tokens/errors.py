"""The error of networks whose tokens cannot be merged or learned."""

from run_folders.errors import UserError


class TokenError(UserError, ValueError):
    """The tokens of a network cannot be merged or learned as configured."""
