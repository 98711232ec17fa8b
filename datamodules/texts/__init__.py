"""Texts: cleaning, tokenizing, batching."""
