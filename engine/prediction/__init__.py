"""Prediction of new inputs, one file for each kind of input."""
