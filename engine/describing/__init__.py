"""The command that describes data before training."""
