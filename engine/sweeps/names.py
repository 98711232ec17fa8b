"""Names of runs, sweeps, dashboard groups and log files, for interpolations in the config."""

import re
from collections.abc import Sequence
from functools import partial
from pathlib import Path

from omegaconf import DictConfig, OmegaConf

from datamodules.reading.tables import SUFFIXES
from engine.config.defaults import register_defaults
from engine.processes import ranks
from run_folders.sweep import RECORD

_LONGEST_NAME = 100
# Options of data that read any folder, so that only the folder says which data a run has.
_ANY_FOLDER = ("text", "image", "segmentation", "multilabel_text", "multilabel_image")


def register_resolvers(overrides: Sequence[str] = ()) -> None:
    """Register the resolvers of the config: names, and defaults that follow from other keys.

    Runs and sweeps are named for their experiments, else for their datasets. A run of `data=text`
    and the like is named for the folder of its data. A backbone of random weights has no name, so
    it has no tokenizer either.

    Args:
        overrides: The overrides of the run or the sweep.
    """
    OmegaConf.register_new_resolver("thaw.name", _name, replace=True)
    OmegaConf.register_new_resolver(
        "thaw.pretrained_name",
        lambda backbone: backbone if isinstance(backbone, str) else None,
        replace=True,
    )
    OmegaConf.register_new_resolver(
        "thaw.sweep_name", partial(_sweep_name, tuple(overrides)), replace=True, use_cache=True
    )
    OmegaConf.register_new_resolver("thaw.run_name", _run_name, replace=True)
    OmegaConf.register_new_resolver("thaw.group", _group, replace=True)
    register_defaults()
    OmegaConf.register_new_resolver("thaw.stamp", ranks.stamp, replace=True, use_cache=True)
    OmegaConf.register_new_resolver("thaw.log", ranks.log_name, replace=True)


def _name(experiment: str | None, data: str, *, _root_: DictConfig) -> str:
    """Name a run for its experiment, else for the folder of its data, else for its data option.

    Args:
        experiment: The chosen option of `experiment`.
        data: The chosen option of `data`.
        _root_: The config. A resolver that gets it may read a folder that is not set.
    """
    folder = None
    if not experiment and data in _ANY_FOLDER:
        folder = OmegaConf.select(
            _root_, "data.folder", throw_on_missing=False, throw_on_resolution_failure=False
        )
    return experiment or _folder_name(str(folder or "")) or data


def _folder_name(path: str) -> str:
    """Return the last part of a path as the name of a folder; an empty string if it has none."""
    last = Path(path)
    name = last.stem if last.suffix.lower() in SUFFIXES else last.name
    return re.sub(r"[^\w.-]+", "_", name).strip("._")[:_LONGEST_NAME]


def _sweep_name(overrides: Sequence[str], default: str) -> str:
    """Name a sweep for all its experiments, joined by +, else for its datasets.

    The name is read from the overrides, not from the config, because it must be the same in every
    job. OmegaConf caches it with the config, because launchers send the config to other processes.
    """
    for group in ("experiment=", "data="):
        for override in overrides:
            if override.startswith(group):
                return override.removeprefix(group).replace(",", "+")[:_LONGEST_NAME]
    return default


def _run_name(name: str, folder: str) -> str:
    """Return a run's name on dashboards: name and start time, for a sweep's job also its number."""
    sweep = _sweep_of(folder)
    parts = [Path(folder).name] if sweep is None else Path(folder).relative_to(sweep.parent).parts
    return " ".join([name[:_LONGEST_NAME], *parts])


def _group(folder: str) -> str | None:
    """Return the dashboard group of a sweep's job: the sweep's name and start time.

    Returns None for a run outside of a sweep.
    """
    sweep = _sweep_of(folder)
    return None if sweep is None else "/".join(sweep.parts[-2:])


def _sweep_of(folder: str) -> Path | None:
    """Return the sweep's folder that a run folder is in; every process of a job can find it."""
    return next((path for path in Path(folder).parents if (path / RECORD).is_file()), None)
