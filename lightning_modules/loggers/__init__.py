"""The dashboard of our own: W&B. TensorBoard and MLflow are Lightning's."""
