"""Datamodules: they read files and return typed batches."""
