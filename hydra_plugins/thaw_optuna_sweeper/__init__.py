"""Hydra's sweeper `optuna`.

The published plugin of this name pins an old version of Optuna, and cannot prune or resume.
"""
