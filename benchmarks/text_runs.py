"""Training runs on tweets to be measured: taken in turn, and Thaw's, built from its configs."""

import argparse
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal, Protocol

import numpy as np
import torch
from omegaconf import DictConfig, OmegaConf
from torch import nn

from benchmarks.measuring import now
from datamodules.text import TextDataModule
from engine.build import Parts, build
from engine.command_line import CONFIGS
from engine.config_files import ConfigFiles
from engine.feature_cache import give_features, plan_features
from engine.precision import settle_precision
from engine.quiet import quieten
from engine.run_folder import RunFolder


class Run(Protocol):
    """Something that trains from a seed.

    Attributes:
        share: What part of the whole work the last training was, above 0 and up to 1.
    """

    share: float

    def prepare(self, seed: int, steps: int | None = None) -> None:
        """Build all that a run needs, which is not measured; `steps` for a short one."""

    def train(self) -> float:
        """Train and test; returns the accuracy, 0..1."""


def add_backbone(parser: argparse.ArgumentParser) -> argparse.ArgumentParser:
    """Let a script be told the text backbone."""
    name = "sentence-transformers/all-MiniLM-L6-v2"
    parser.add_argument("--backbone", default=name, help=f"text backbone: hub name or folder (default: {name})")
    return parser


def in_turn(
    runs: Mapping[str, Run], repetitions: int | Mapping[str, int], warmth: int
) -> tuple[dict[str, tuple[float, ...]], dict[str, tuple[float, ...]]]:
    """Warm every side up with a few steps, then let each train with seed 1, each with seed 2, and so on.

    Args:
        runs: Name -> side.
        repetitions: How many seeds; of each side, where one of them takes very long.
        warmth: Steps of the short run before.

    Returns:
        Name -> seconds, and name -> accuracies.
    """
    seconds: dict[str, list[float]] = {name: [] for name in runs}
    accuracies: dict[str, list[float]] = {name: [] for name in runs}
    for run in runs.values():
        run.prepare(0, steps=warmth)
        run.train()
    wanted = dict.fromkeys(runs, repetitions) if isinstance(repetitions, int) else repetitions
    for seed in range(1, max(wanted.values()) + 1):
        for name, run in runs.items():
            if seed > wanted[name]:
                continue
            run.prepare(seed)
            start = now()
            accuracies[name].append(run.train())
            seconds[name].append(now() - start)
            print(f"{name}, seed {seed}: {seconds[name][-1]:.1f} s, accuracy {accuracies[name][-1]:.4f}", flush=True)
    return {name: tuple(s) for name, s in seconds.items()}, {name: tuple(a) for name, a in accuracies.items()}


class ThawRun:
    """A run of an experiment, built and trained as `train.py` does it."""

    share = 1.0

    def __init__(
        self,
        experiment: str,
        given: argparse.Namespace,
        words: Mapping[str, Any],
        *,
        split: str = "val",
        features: Literal["none", "before", "measured"] = "none",
    ) -> None:
        """State what to run.

        Args:
            experiment: Name of the experiment.
            given: The command line.
            words: Dotted key -> value, as on the command line of `train.py`.
            split: The accuracy that is told: of `val`, or of `test`, which is then tested once at the end.
            features: Whether what is frozen for good runs once, and whether that is part of what is measured.
        """
        self.experiment, self.given, self.words = experiment, given, dict(words)
        self.split, self.features = split, features
        self.place = tempfile.TemporaryDirectory(prefix="thaw-benchmark-")
        self.runs = 0
        self.parts: Parts | None = None
        quieten()

    def config(self, seed: int) -> DictConfig:
        """The composed config."""
        files = ConfigFiles(CONFIGS)
        cfg = OmegaConf.create(files.compose({"experiment": self.experiment}, []).to_yaml())
        assert isinstance(cfg, DictConfig)  # noqa: S101 - tells the type checker
        stated = {
            "seed": seed,
            "model.backbone": self.given.backbone,
            "paths.data_dir": str(self.given.data_dir.resolve()),
            "trainer.accelerator": "cpu" if self.given.device == "cpu" else "gpu",
        }
        for key, value in {**stated, **self.words}.items():
            OmegaConf.update(cfg, key, value)
        return cfg

    def prepare(self, seed: int, steps: int | None = None) -> None:
        """Read the data, build network and trainer."""
        cfg = self.config(seed)
        if steps is not None:
            cfg.trainer.limit_train_batches = steps
        self.runs += 1
        folder = RunFolder(Path(self.place.name) / str(self.runs))
        folder.path.mkdir()
        settle_precision(cfg, folder)
        # Where storing them is measured, nothing is found there; else they are computed once for all repetitions.
        cfg.cache.dir = str((folder.path if self.features == "measured" else folder.path.parent) / "features")
        cfg.cache.features = self.features != "none" and steps is None
        cfg.test = self.split == "test"
        torch.manual_seed(seed)
        self.cfg, self.parts = cfg, build(cfg, folder)
        self.datamodule.tokenized  # noqa: B018 - tokenised before the clock starts, as for the peer
        if self.features == "before":
            self._store_features()

    def _store_features(self) -> None:
        assert self.parts is not None  # noqa: S101 - tells the type checker
        give_features(plan_features(self.cfg, self.parts, None), self.parts)

    def train(self) -> float:
        """Fit with all that a run has: figures, history, checkpoints; then test where that is asked for."""
        assert self.parts is not None  # noqa: S101 - tells the type checker
        if self.features == "measured":
            self._store_features()
        self.parts.trainer.fit(self.parts.task, datamodule=self.parts.datamodule)
        if self.split == "test":
            self.parts.trainer.test(self.parts.task, datamodule=self.parts.datamodule, verbose=False)
        accuracy = self.parts.task.results[self.split].figures["acc"]
        assert accuracy is not None  # noqa: S101 - tells the type checker
        return float(accuracy)

    @property
    def datamodule(self) -> TextDataModule:
        """The texts."""
        assert self.parts is not None  # noqa: S101 - tells the type checker
        assert isinstance(self.parts.datamodule, TextDataModule)  # noqa: S101
        return self.parts.datamodule

    @property
    def train_rows(self) -> int:
        """Texts of an epoch."""
        return len(self.datamodule.splits["train"])

    @property
    def backbone_name(self) -> str:
        """What a person knows the backbone by."""
        return Path(self.given.backbone).name


def forward_operations(run: ThawRun, split: str) -> float:
    """Floating-point operations of the encoder for a split's real tokens, padding left out."""
    assert run.parts is not None  # noqa: S101 - tells the type checker
    encoder: Any = run.parts.task.network.features
    lengths = run.datamodule.tokenized[split].lengths.astype(np.float64)
    layers = [module for name, module in encoder.named_modules() if isinstance(module, nn.Linear) and "layer." in name]
    products = 2 * sum(layer.weight.numel() for layer in layers) * lengths.sum()
    # Scores and their use: two products of T x T x C in each layer.
    attention = 4 * encoder.config.num_hidden_layers * encoder.config.hidden_size * (lengths**2).sum()
    return float(products + attention)


def training_operations(run: ThawRun) -> float:
    """Operations of an epoch of fine-tuning: forward, and twice that backward; and the validation."""
    return 3 * forward_operations(run, "train") + forward_operations(run, "val")
