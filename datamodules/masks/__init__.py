"""Masks of classes, one for each image: rows, class lists, storage, transforms."""
