"""Prediction of new inputs: one module for each kind of input."""
