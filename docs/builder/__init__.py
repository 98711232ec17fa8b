"""Builds the documentation site: `python -m docs.builder`."""
