"""Losses. Plain torch."""
