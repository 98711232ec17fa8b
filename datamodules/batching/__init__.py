"""Batching of samples: order, loaders, and stored features in place of samples."""
