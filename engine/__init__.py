"""Config -> objects -> one run."""
