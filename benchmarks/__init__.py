"""Measurements against other tools; each script is a command: `python -m benchmarks.imports`."""
