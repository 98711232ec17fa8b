"""Where a run is watched and compared: W&B, TensorBoard, MLflow, Trackio, plain files."""
