"""The error of an invalid config."""

from run_folders.errors import UserError


class ConfigError(UserError, ValueError):
    """An invalid config; the message lists all faults, one per line."""
