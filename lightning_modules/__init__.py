"""Batches -> loss and metrics: one LightningModule a task."""
