"""Seeding of each epoch from (seed, epoch).

A resumed run therefore draws the same random numbers as an uninterrupted one.
"""

import random

import lightning
import numpy as np
import torch


class EpochSeed(lightning.Callback):
    """Seeds Python, NumPy and torch at the start of each training epoch.

    Each process has its own seed.
    """

    def __init__(self, seed: int) -> None:
        self.seed = seed

    def on_train_epoch_start(
        self,
        trainer: lightning.Trainer,
        pl_module: lightning.LightningModule,  # noqa: ARG002
    ) -> None:
        """Seed the random number generators for this epoch."""
        state = np.random.SeedSequence(
            [self.seed, trainer.current_epoch, trainer.global_rank]
        ).generate_state(3)
        random.seed(int(state[0]))
        np.random.seed(int(state[1]))  # other libraries use the global generator
        torch.manual_seed(int(state[2]))
