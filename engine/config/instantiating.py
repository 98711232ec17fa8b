"""Build the objects that config nodes name."""

from collections.abc import Mapping
from functools import partial
from typing import Any

from omegaconf import DictConfig, OmegaConf

from engine.config.errors import ConfigError
from engine.config.objects import protocol_faults, special_key_faults
from engine.config.places import place_of, resolve_target
from run_folders.errors import UserError, brief

_OURS = ("lightning_modules.", "datamodules.")


def build_object(cfg: DictConfig, path: str, **injected: Any) -> Any:  # noqa: ANN401 - whatever the place expects
    """Build the object of a place, and the objects inside its node.

    Targets are checked here too, because a config from a run folder has not been validated. Only
    nodes of the config are built: an injected value stays as it is.

    Args:
        cfg: The whole config.
        path: The dotted key of the node.
        injected: Arguments that replace keys of the node.

    Returns:
        The object; for a deferred place a `functools.partial`.

    Raises:
        ConfigError: If the config may not build an object, or its class rejects the arguments.
    """
    selected = OmegaConf.select(cfg, path)
    selected = selected if isinstance(selected, DictConfig) else None
    node: Any = OmegaConf.to_container(selected, resolve=True) if selected is not None else selected
    if not isinstance(node, dict):
        msg = f"{path}: received {node!r}; a node with a _target_ is needed"
        raise ConfigError(msg)
    return _build({key: v for key, v in node.items() if key not in injected}, path, injected)


def _build(node: Mapping[str, Any], path: str, injected: Mapping[str, Any]) -> Any:  # noqa: ANN401 - see build_object
    target, place = resolve_target(node.get("_target_"), path), place_of(path)
    for key, fault in (*special_key_faults(node, path), *protocol_faults(target, node, path)):
        msg = f"{key}: {fault}"
        raise ConfigError(msg)
    arguments = {
        key: _argument(value, f"{path}.{key}") for key, value in node.items() if key != "_target_"
    }
    if place is not None and place.deferred:
        return partial(target, **arguments)
    try:
        return target(**arguments, **injected)
    except (TypeError, ValueError) as error:
        # An error of our own classes is a bug. The caller reports that of a logger or trainer.
        reported = path.startswith(("logger.", "trainer"))
        if reported or isinstance(error, UserError) or target.__module__.startswith(_OURS):
            raise
        msg = f"{path}: {target.__name__}: {brief(error)}"
        raise ConfigError(msg) from error


def _argument(value: Any, path: str) -> Any:  # noqa: ANN401 - any value of a config
    """Return an argument: an object if the value is a node, else the value itself."""
    if isinstance(value, Mapping) and "_target_" in value:
        return _build(value, path, {})
    place = place_of(path)
    if place is not None and place.deferred:
        msg = f"{path}: received {value!r}; a node with a _target_ is needed"
        raise ConfigError(msg)
    for key, inner in value.items() if isinstance(value, Mapping) else ():
        _argument(inner, f"{path}.{key}")  # raises if there is a node where none is expected
    for index, inner in enumerate(value) if isinstance(value, list) else ():
        _argument(inner, f"{path}.{index}")
    return value
