"""Hydra's search path: configs of own packages and of the working directory."""
