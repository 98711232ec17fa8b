"""Check what a run is to do: its seed, its steps, the weights it starts from, its cache."""

from collections.abc import Iterator
from typing import Any

from engine.config.signatures import Fault
from run_folders.nested import value_at

_MAX_SEED = 2**32 - 1
_LARGEST_GB = 1e9
_SPLITS = ("train", "val", "test")


def seed_faults(values: dict[str, Any]) -> Iterator[Fault]:
    """Check that the seed is one that all random generators accept."""
    seed = values.get("seed")
    if not isinstance(seed, int) or isinstance(seed, bool):
        yield "seed", f"received {seed!r}; a whole number is needed"
    elif not 0 <= seed <= _MAX_SEED:
        yield "seed", f"received {seed!r}; 0 to {_MAX_SEED} is needed"


def switch_faults(values: dict[str, Any]) -> Iterator[Fault]:
    """Check that each step of a run is switched on or off."""
    for key in ("plan", "estimate", "train", "test"):
        value = values.get(key)
        if not isinstance(value, bool) and (key, value) != ("plan", "cost"):
            options = "true, false or cost" if key == "plan" else "true or false"
            yield key, f"received {value!r}; choose {options}"


def samples_faults(values: dict[str, Any]) -> Iterator[Fault]:
    """Check that `samples` limits known splits to numbers of samples."""
    samples = values.get("samples")
    if samples is None:
        return
    if not isinstance(samples, dict):
        yield (
            "samples",
            f"received {samples!r}; a mapping such as {{train: 1000}} is needed",
        )
        return
    for split, count in samples.items():
        if split not in _SPLITS:
            yield f"samples.{split}", f"unknown split; choose {', '.join(_SPLITS)}"
        elif not isinstance(count, int) or isinstance(count, bool) or count < 1:
            yield f"samples.{split}", f"received {count!r}; a whole number from 1 is needed"


def weights_faults(values: dict[str, Any]) -> Iterator[Fault]:
    """Check that weights of a run are named by its folder."""
    for key in ("model.backbone", "model.weights"):
        file = str(value_at(values, key))
        if file.endswith(".ckpt"):
            run = file.rpartition("/checkpoints/")[0] or "RUN"
            yield key, f"received a checkpoint of a run; set model.backbone={run}, the run's folder"


def cache_faults(values: dict[str, Any]) -> Iterator[Fault]:
    """Check the settings of the feature cache."""
    cache = values.get("cache")
    if not isinstance(cache, dict):
        yield "cache", f"received {cache!r}; a mapping with features, dir and max_gb is needed"
        return
    features, folder, size = cache.get("features"), cache.get("dir"), cache.get("max_gb")
    if features != "auto" and not isinstance(features, bool):
        yield "cache.features", f"received {features!r}; choose auto, true or false"
    if folder is not None and (not isinstance(folder, str) or not folder):
        yield (
            "cache.dir",
            f"received {folder!r}; a folder is needed, or null for the user's cache folder",
        )
    if isinstance(size, bool) or not isinstance(size, int | float) or not 0 < size <= _LARGEST_GB:
        yield (
            "cache.max_gb",
            f"received {size!r}; a number of gigabytes above 0, up to {_LARGEST_GB:g}, is needed",
        )


def untrained_faults(values: dict[str, Any]) -> Iterator[Fault]:
    """Check that a run that does not train is tested, and starts from no checkpoint."""
    if values.get("train") is not False:
        return
    if values.get("test") is False:
        yield "test", "received false, and train=false too; nothing would be done"
    if values.get("ckpt_path") is not None:
        yield (
            "ckpt_path",
            "received a checkpoint, and train=false; "
            "scripts/evaluate.py RUN tests a run's checkpoint again",
        )


def study_faults(values: dict[str, Any]) -> Iterator[Fault]:
    """Check that a study of depth, which replaces training, is not asked to do more."""
    if not values.get("depth"):
        return
    if not isinstance(values["depth"], dict) or "_target_" not in values["depth"]:
        yield "depth", f"received {values['depth']!r}; choose an option of the group"
    if values.get("train") is False:
        yield "train", "received false; a study of depth replaces training: leave it out"
    if values.get("ckpt_path") not in (None, "last"):
        yield "ckpt_path", "received a checkpoint; a study of depth starts from model.backbone"
