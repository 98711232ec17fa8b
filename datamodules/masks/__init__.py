"""Segmentation masks: rows, class lists, storage, transforms."""
