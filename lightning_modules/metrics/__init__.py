"""Metrics from sums and counts. Plain torch."""
