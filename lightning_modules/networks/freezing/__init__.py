"""Freezing plans, names and depths of layers, and the frozen prefix of a network."""
