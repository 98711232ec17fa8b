"""Freezing plans, names and depths of layers, the frozen prefix."""
