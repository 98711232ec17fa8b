"""From samples to batches: their order, loaders, and features stored in place of samples."""
