"""Find the file, or the command line, that sets a key of the running job's config."""

import math
from collections.abc import Iterator, Mapping
from functools import lru_cache
from pathlib import Path
from typing import Any, NamedTuple

from hydra.core.config_loader import ConfigLoader
from hydra.core.global_hydra import GlobalHydra
from hydra.core.hydra_config import HydraConfig
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.types import RunMode
from omegaconf import OmegaConf

from engine.config.composing.composition import typed_overrides
from run_folders.nested import nodes

COMMAND_LINE = "the command line"
# Groups whose options are parts of the model.
PARTS = frozenset({"head", "loss", "optimizer", "schedule"})
_PART_KEYS = {f"model.{part}" for part in PARTS}


class Source(NamedTuple):
    """Where a key of the config was set.

    Attributes:
        rank: Position in the order in which files are merged; the command line has the last.
        name: The file, or `COMMAND_LINE`.
    """

    rank: float
    name: str


TYPED = Source(math.inf, COMMAND_LINE)


def sources_of_keys() -> dict[str, Source]:
    """Return dotted key -> the last source that sets it, for the running job's config.

    The class of a part of the model has the name of the file that states it. It has the rank of the
    source that chooses this file: another file with `override /head: bigru`, or the command line
    with `head=bigru`.
    """
    job = HydraConfig.get()
    typed: Any = OmegaConf.to_container(job.overrides, resolve=False)
    folders = tuple(
        Path(source.path) for source in job.runtime.config_sources if source.schema == "file"
    )
    loader = GlobalHydra.instance().config_loader()
    return _sources(
        loader, job.job.config_name, tuple(typed["hydra"]), tuple(typed["task"]), folders
    )


@lru_cache(maxsize=1)  # one job asks several times, and Hydra reads all files each time
def _sources(
    loader: ConfigLoader,  # each application has its own, so files changed between two are read
    config_name: str,
    of_hydra: tuple[str, ...],
    of_task: tuple[str, ...],
    folders: tuple[Path, ...],
) -> dict[str, Source]:
    sources: dict[str, Source] = {}
    choices: dict[str, Source] = {}
    overrides = [*of_hydra, *of_task]
    defaults = loader.compute_defaults_list(config_name, overrides, RunMode.RUN).defaults
    for rank, default in enumerate(defaults):
        name = f"{default.config_path}.yaml"
        folder = next((folder for folder in folders if (folder / name).is_file()), None)
        if folder is not None:
            body: Any = OmegaConf.to_container(OmegaConf.load(folder / name), resolve=False)
            prefix = f"{default.package}." if default.package else ""
            source = Source(rank, f"{folder.name}/{name}")
            for key, value in nodes(body, prefix):
                sources[key] = source
                if key in _PART_KEYS and isinstance(value, str):  # the spelling of version 0.1
                    sources[f"{key}._target_"] = source
            choices |= dict.fromkeys(_overridden_groups(body), source)
    parsed = OverridesParser.create().parse_overrides(list(of_task))
    chosen = [override.key_or_group for override in parsed]
    choices |= dict.fromkeys(PARTS.intersection(chosen), TYPED)
    for part in PARTS.intersection(choices):
        key = f"model.{part}._target_"
        stated = sources.get(key, choices[part])
        sources[key] = Source(max(choices[part].rank, stated.rank), stated.name)
    for override in parsed:
        if isinstance(value := override.value(), dict):
            chosen += [key for key, _ in nodes(value, f"{override.key_or_group}.")]
    chosen += [f"model.{part}" for part in PARTS.intersection(chosen)]
    return sources | dict.fromkeys(chosen, TYPED)


def choices_without_effect() -> Iterator[tuple[str, str]]:
    """Yield each part of the model whose typed option a file replaces, and the file."""
    typed = PARTS.intersection(override.partition("=")[0] for override in typed_overrides())
    sources = sources_of_keys() if typed else {}
    for part in typed:
        name = sources[f"model.{part}._target_"].name
        if name != COMMAND_LINE and Path(name).parent.name != part:
            yield part, name


def _overridden_groups(body: Mapping[str, Any]) -> Iterator[str]:
    """Yield the groups whose option a file overrides in its defaults list."""
    for entry in body.get("defaults") or ():
        for key in entry if isinstance(entry, dict) else ():
            if str(key).startswith("override "):
                yield str(key).removeprefix("override ").lstrip("/").partition("@")[0]
