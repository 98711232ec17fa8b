"""Compose, validate and redact the config."""
