"""Find keys that belong to a class which another source of the config has replaced.

`head=linear` replaces the head of an experiment that sets `model.head.hidden`. The linear head has
no such key. The key came with the replaced head, so it is dropped.
"""

import inspect
from collections.abc import Iterator, Mapping
from typing import Any

from hydra.core.hydra_config import HydraConfig
from omegaconf import DictConfig, OmegaConf

from engine.config.composing.sources import TYPED, sources_of_keys
from engine.config.errors import ConfigError
from engine.config.places import resolve_target
from engine.config.signatures import parameters_of
from run_folders.nested import nodes


def inapplicable_keys(cfg: DictConfig) -> dict[str, str]:
    """Return the keys of nodes that their class does not have and that an earlier source set.

    A key is kept, and then is a fault, if the source that chose the class set it, or a later one.

    Args:
        cfg: The composed config of the running job.

    Returns:
        Dotted key -> the file that set it.
    """
    unknown = list(_unknown_keys(cfg))
    if not unknown or not HydraConfig.initialized():
        return {}
    sources = sources_of_keys()
    found = {}
    for path, key in unknown:
        chosen = sources.get(f"{path}._target_", TYPED)
        source = sources.get(f"{path}.{key}", TYPED)
        # A key that the class's own file sets is a typo there.
        if source.rank < chosen.rank and source.name != chosen.name:
            found[f"{path}.{key}"] = source.name
    return found


def _unknown_keys(cfg: DictConfig) -> Iterator[tuple[str, str]]:
    """Yield the path of a node and a key that its class does not have."""
    values: Any = OmegaConf.to_container(cfg, resolve=False)
    for path, node in nodes(values):
        if not isinstance(node, Mapping) or "_target_" not in node:
            continue
        try:
            parameters = parameters_of(resolve_target(node["_target_"], path))
        except ConfigError:  # validation reports it
            continue
        if not any(p.kind is inspect.Parameter.VAR_KEYWORD for p in parameters.values()):
            yield from ((path, key) for key in node if key not in {*parameters, "_target_"})
