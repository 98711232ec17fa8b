"""Batches -> loss and figures: one LightningModule a task."""
