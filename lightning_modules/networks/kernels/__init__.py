"""Faster implementations of torch layers."""
