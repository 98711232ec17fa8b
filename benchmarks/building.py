"""Build runs as `train.py` builds them, from an experiment and overrides."""

import argparse
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import lightning
from omegaconf import DictConfig, OmegaConf

from engine.build import RunObjects, build
from engine.config.composing.composition import compose_config
from engine.config.settling import settle
from engine.processes.library_warnings import filter_known
from engine.sweeps.names import register_resolvers
from run_folders.run_folder import RunFolder


def composed(
    experiment: str, given: argparse.Namespace, overrides: Mapping[str, Any]
) -> DictConfig:
    """Return the config of an experiment for the benchmark's data folder and device.

    Args:
        experiment: Name of the experiment.
        given: Command-line arguments of the benchmark, with `data_dir` and `device`.
        overrides: Overrides as dotted key -> value; they come last.
    """
    register_resolvers()
    cfg = compose_config([f"experiment={experiment}"])
    base = {
        "paths.data_dir": str(given.data_dir.resolve()),
        "trainer.accelerator": "cpu" if given.device == "cpu" else "gpu",
    }
    for key, value in {**base, **overrides}.items():
        OmegaConf.update(cfg, key, value, force_add=True)
    return cfg


def short_run(steps: int) -> dict[str, int]:
    """Return overrides for one epoch of `steps` steps, and as many batches per evaluation."""
    return {
        "trainer.max_epochs": 1,
        **{f"trainer.limit_{stage}_batches": steps for stage in ("train", "val", "test")},
    }


def built(cfg: DictConfig, folder: Path) -> RunObjects:
    """Build data, network and trainer of a config, after the same preparations as a run.

    Args:
        cfg: The validated config; it is completed in place, as in a run.
        folder: The run folder. It is created and must not exist.

    Returns:
        The objects of the run.
    """
    folder.mkdir(parents=True)
    filter_known()
    settle(cfg, RunFolder(folder))
    lightning.seed_everything(cfg.seed, verbose=False)
    return build(cfg, RunFolder(folder))
