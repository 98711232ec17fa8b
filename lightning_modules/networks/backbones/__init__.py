"""Pretrained networks: from a batch to features."""
