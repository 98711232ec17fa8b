"""Heads that turn features into logits."""
