"""Parameter groups, optimizers and learning-rate schedules in plain torch."""
