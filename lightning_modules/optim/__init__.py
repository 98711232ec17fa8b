"""Parameter groups, optimizers, schedules. Plain torch."""
