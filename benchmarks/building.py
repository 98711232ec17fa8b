"""Thaw's runs as `train.py` builds them, from an experiment and further words."""

import argparse
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import lightning
from omegaconf import DictConfig, OmegaConf

from engine.build import RunObjects, build
from engine.config.composing import compose_config
from engine.config.precision import resolve_precision
from engine.library_warnings import filter_known
from run_folders.run_folder import RunFolder


def composed(experiment: str, given: argparse.Namespace, words: Mapping[str, Any]) -> DictConfig:
    """The config of an experiment.

    Args:
        experiment: Its name.
        given: The command line of a benchmark, with `data_dir` and `device`.
        words: Dotted key -> value, as on the command line of `train.py`.

    Returns:
        The config.
    """
    cfg = compose_config([f"experiment={experiment}"])
    stated = {
        "paths.data_dir": str(given.data_dir.resolve()),
        "trainer.accelerator": "cpu" if given.device == "cpu" else "gpu",
    }
    for key, value in {**stated, **words}.items():
        OmegaConf.update(cfg, key, value, force_add=True)
    return cfg


def short_run(steps: int) -> dict[str, int]:
    """Words for so many steps, and as many batches of each evaluation."""
    return {
        "trainer.max_epochs": 1,
        **{f"trainer.limit_{stage}_batches": steps for stage in ("train", "val", "test")},
    }


def built(cfg: DictConfig, folder: Path) -> RunObjects:
    """Data, network and trainer of a config, with what a run settles before.

    Args:
        cfg: Gets the precision in place of `auto`.
        folder: The run folder, which is made.

    Returns:
        The parts.
    """
    folder.mkdir(parents=True)
    filter_known()
    resolve_precision(cfg, RunFolder(folder))
    lightning.seed_everything(cfg.seed, verbose=False)
    return build(cfg, RunFolder(folder))
