"""Layers made faster than torch's own."""
