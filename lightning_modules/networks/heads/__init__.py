"""Heads: from features to logits."""
