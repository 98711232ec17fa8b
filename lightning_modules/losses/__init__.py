"""Losses in plain torch. A config names them here."""

from lightning_modules.losses.classification import CrossEntropy
from lightning_modules.losses.segmentation import SegmentationLoss, UpsampledCrossEntropy

__all__ = ["CrossEntropy", "SegmentationLoss", "UpsampledCrossEntropy"]
