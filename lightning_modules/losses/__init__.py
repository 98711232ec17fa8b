"""Losses in plain torch."""
