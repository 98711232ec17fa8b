"""Validate the composed config before any work. Nothing is built."""
