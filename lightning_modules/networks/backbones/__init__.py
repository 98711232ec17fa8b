"""Pretrained networks that turn a batch into features."""
