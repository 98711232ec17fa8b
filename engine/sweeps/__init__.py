"""Sweeps and searches."""
