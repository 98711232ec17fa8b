"""Heads that turn features into logits. A config names them here."""

from lightning_modules.networks.heads.classification import BiGRUHead, LinearHead, MLPHead

__all__ = ["BiGRUHead", "LinearHead", "MLPHead"]
