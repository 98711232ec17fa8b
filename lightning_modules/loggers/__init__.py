"""Thaw's W&B logger. TensorBoard and MLflow use Lightning's loggers."""
