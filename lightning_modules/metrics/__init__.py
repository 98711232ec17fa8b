"""Metrics computed from sums and counts, in plain torch."""
