"""Thaw's training runs on tweets, built from its configs."""

import argparse
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

import numpy as np
from torch import nn

from benchmarks.building import built, composed, short_run
from benchmarks.turns import Run
from datamodules.text import TextDataModule
from engine.build import RunObjects
from engine.checkpoints import AtomicCheckpointIO, make_self_contained
from engine.feature_cache.filling import fill_cache
from engine.feature_cache.planning import plan_cache


def add_backbone(parser: argparse.ArgumentParser) -> argparse.ArgumentParser:
    """Add the option `--backbone` to the parser of a script, and return the parser."""
    name = "sentence-transformers/all-MiniLM-L6-v2"
    parser.add_argument(
        "--backbone", default=name, help=f"text backbone: hub name or folder (default: {name})"
    )
    return parser


class ThawRun(Run):
    """A run of an experiment, built and trained as `train.py` does."""

    def __init__(
        self,
        experiment: str,
        given: argparse.Namespace,
        overrides: Mapping[str, Any],
        *,
        split: str = "val",
        features: Literal["none", "measured"] | Path = "none",
    ) -> None:
        """Store what to run.

        Args:
            experiment: Name of the experiment.
            given: Command-line arguments of the benchmark.
            overrides: Overrides as dotted key -> value.
            split: Split of the returned accuracy, `val` or `test`. With `test` the run tests once
                at the end.
            features: `none` trains without stored features. `measured` stores features while the
                clock runs. A folder: features are stored there before the clock starts.
        """
        self.experiment, self.given, self.overrides = experiment, given, dict(overrides)
        self.split, self.features = split, features
        self.place = tempfile.TemporaryDirectory(prefix="thaw-benchmark-")
        self.runs = 0
        self.objects: RunObjects | None = None

    def prepare(self, seed: int, steps: int | None = None) -> nn.Module:
        """Read the data, build network and trainer, and return the network."""
        short = {} if steps is None else short_run(steps)
        self.runs += 1
        folder = Path(self.place.name) / str(self.runs)
        base = {
            "seed": seed,
            "model.backbone": self.given.backbone,
            "test": self.split == "test",
            # If storing is measured, each run gets an empty folder; else all runs share the
            # features.
            "cache.dir": str(
                self.features if isinstance(self.features, Path) else folder / "features"
            ),
            "cache.features": self.features != "none" and steps is None,
        }
        self.cfg = composed(self.experiment, self.given, {**base, **self.overrides, **short})
        self.objects = built(self.cfg, folder)
        self.datamodule.tokenized  # noqa: B018 - tokenises before the clock starts, as baselines do
        if isinstance(self.features, Path) and steps is None:
            self._store_features()
        network: nn.Module = self.objects.task.network
        return network

    def _store_features(self) -> None:
        assert self.objects is not None  # noqa: S101 - tells the type checker
        fill_cache(plan_cache(self.cfg, self.objects, None), self.objects)

    def train(self) -> float:
        """Fit with metrics, history and checkpoints; test if the split is `test`.

        Returns:
            Accuracy of the split, 0..1.
        """
        assert self.objects is not None  # noqa: S101 - tells the type checker
        if self.features == "measured" and self.cfg.cache.features:
            self._store_features()
        self.objects.trainer.fit(self.objects.task, datamodule=self.objects.datamodule)
        io = self.objects.trainer.strategy.checkpoint_io
        assert isinstance(io, AtomicCheckpointIO)  # noqa: S101 - tells the type checker
        make_self_contained(io.digests)
        if self.split == "test":
            self.objects.trainer.test(
                self.objects.task, datamodule=self.objects.datamodule, verbose=False
            )
        accuracy = self.objects.task.results[self.split].metrics["acc"]
        assert accuracy is not None  # noqa: S101 - tells the type checker
        return float(accuracy)

    @property
    def datamodule(self) -> TextDataModule:
        """The datamodule of the prepared run."""
        assert self.objects is not None  # noqa: S101 - tells the type checker
        assert isinstance(self.objects.datamodule, TextDataModule)  # noqa: S101
        return self.objects.datamodule

    @property
    def train_rows(self) -> int:
        """Number of texts in an epoch."""
        return len(self.datamodule.splits["train"])

    @property
    def backbone_name(self) -> str:
        """The backbone's name without folder or organisation."""
        return Path(self.given.backbone).name


def forward_operations(run: ThawRun, split: str) -> float:
    """Return the encoder's floating-point operations for a split, without padding."""
    assert run.objects is not None  # noqa: S101 - tells the type checker
    encoder: Any = run.objects.task.network.features
    lengths = run.datamodule.tokenized[split].lengths.astype(np.float64)
    layers = [
        module
        for name, module in encoder.named_modules()
        if isinstance(module, nn.Linear) and "layer." in name
    ]
    products = 2 * sum(layer.weight.numel() for layer in layers) * lengths.sum()
    # Scores and weighted values: two products of T x T x C in each layer.
    attention = (
        4 * encoder.config.num_hidden_layers * encoder.config.hidden_size * (lengths**2).sum()
    )
    return float(products + attention)


def training_operations(run: ThawRun) -> float:
    """Return the operations of a fine-tuning epoch and its validation.

    The backward pass costs twice the forward pass.
    """
    return 3 * forward_operations(run, "train") + forward_operations(run, "val")
