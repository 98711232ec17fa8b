"""Validation of the composed config: every fault is found before any work, and all are told together."""

import importlib
import inspect
import types
import typing
from collections.abc import Callable, Iterator
from contextlib import suppress
from difflib import get_close_matches
from typing import Any, Literal

from omegaconf import DictConfig, ListConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from engine.command_line import CONFIGS
from engine.config_files import COMMAND_LINE, Composition, ConfigFiles, Override, UnknownOptionError, UnsupportedError, nearest

# A _target_ may be a class of these packages, wherever the config's name for it points.
ALLOWED = ("lightning_modules.", "datamodules.", "lightning.", "torch.", "torchmetrics.")
_OURS = ("lightning_modules.", "datamodules.")
_HYDRA_KEYS = {"_target_", "_partial_", "_convert_", "_recursive_", "_args_"}
_NEEDED = ("data", "model", "trainer")
_NAMED = ("callbacks", "logger")
_MAX_SEED = 2**32 - 1


class ConfigError(ValueError):
    """The config cannot be run; the message lists every fault, a line each."""

    is_for_the_user = True


def validate(cfg: DictConfig, overrides: list[str], choices: dict[str, str]) -> None:
    """Check the whole config without building anything.

    Args:
        cfg: The composed config.
        overrides: The command line's overrides, to tell which keys came from there.
        choices: Group -> chosen option.

    Raises:
        ConfigError: With all faults.
    """
    origins = _origins(overrides, choices)
    faults = [*_unknown_keys(cfg), *_unresolved(cfg), *_plain_values(cfg)]
    if not any("???" in fault or "interpolation" in fault for _, fault in faults):
        values = OmegaConf.to_container(cfg, resolve=True)
        faults += list(_target_faults(values, ""))
    if faults:
        lines = [f"{path} ({_origin(path, origins)}): {fault}" for path, fault in dict.fromkeys(faults)]
        count = "1 fault" if len(lines) == 1 else f"{len(lines)} faults"
        raise ConfigError("\n  ".join([f"{count} in the config; nothing was run", *lines]))


def _origins(overrides: list[str], choices: dict[str, str]) -> dict[str, str]:
    """Key -> the file that set it, as far as our reading of the files goes."""
    composition = Composition()
    parsed: list[Override] = []
    for text in overrides:
        try:
            parsed.append(Override.parse(text))
        except UnsupportedError:
            continue
    try:
        groups = ConfigFiles(CONFIGS).groups()
        composition = ConfigFiles(CONFIGS).compose({k: v for k, v in choices.items() if k in groups and v}, [])
    except (UnsupportedError, UnknownOptionError):
        pass  # the faults are still told, with the command line as their origin
    return {**composition.origins, **{override.key: COMMAND_LINE for override in parsed}}


def _origin(path: str, origins: dict[str, str]) -> str:
    while path:
        if path in origins:
            return origins[path]
        path = path.rpartition(".")[0]
    return COMMAND_LINE


def _unknown_keys(cfg: DictConfig) -> Iterator[tuple[str, str]]:
    known = ConfigFiles(CONFIGS).compose({}, [])
    roots = list(known.values)
    for key in cfg:
        if key not in roots:
            yield str(key), f"unknown key; {nearest(str(key), known.paths())}"
    for key in cfg.get("paths") or {}:
        if key not in known.values["paths"]:
            yield f"paths.{key}", f"unknown key; {nearest(str(key), list(known.values['paths']))}"
    for name in _NEEDED:
        if not isinstance(cfg.get(name), DictConfig) or "_target_" not in cfg[name]:
            yield name, "needs a _target_; choose an option of the group"
    for group in _NAMED:
        for name in cfg.get(group) or {}:
            node = cfg[group]._get_node(name)  # noqa: SLF001 - the value may be an interpolation
            if not isinstance(node, DictConfig) or "_target_" not in node:
                yield f"{group}.{name}", "has no _target_, so nothing would be built from it"


def _unresolved(node: DictConfig | ListConfig, prefix: str = "") -> Iterator[tuple[str, str]]:
    """Values that are still ??? or whose interpolation leads nowhere."""
    keys = list(node) if isinstance(node, DictConfig) else range(len(node))
    for key in keys:
        path = f"{prefix}{key}"
        try:
            if OmegaConf.is_missing(node, key):
                yield path, "is ???: a value has to be given"
                continue
            value = node[key]
        except OmegaConfBaseException as error:
            yield path, f"interpolation failed: {str(error).splitlines()[0]}"
            continue
        if isinstance(value, DictConfig | ListConfig) and not OmegaConf.is_interpolation(node, key):
            yield from _unresolved(value, f"{path}.")


def _plain_values(cfg: DictConfig) -> Iterator[tuple[str, str]]:
    seed = cfg.get("seed")
    if not isinstance(seed, int) or isinstance(seed, bool) or not 0 <= seed <= _MAX_SEED:
        yield "seed", f"received {seed!r}; a whole number from 0 to {_MAX_SEED} is needed"
    if cfg.get("mode") not in ("min", "max"):
        yield "mode", f"received {cfg.get('mode')!r}; choose min or max"
    if not isinstance(cfg.get("plan"), bool):
        yield "plan", f"received {cfg.get('plan')!r}; choose true or false"
    for key in ("trainer.max_epochs", "trainer.limit_val_batches"):
        if OmegaConf.select(cfg, key) == 0:
            yield key, "received 0; without training and validation there is no best checkpoint"
    monitor = cfg.get("monitor")
    if not isinstance(monitor, str) or not monitor.startswith("val/"):
        yield "monitor", f"received {monitor!r}; the best checkpoint is chosen on validation: val/loss, val/acc, ..."


def _target_faults(node: object, path: str) -> Iterator[tuple[str, str]]:
    if isinstance(node, list):
        for index, value in enumerate(node):
            yield from _target_faults(value, f"{path}.{index}")
    if not isinstance(node, dict):
        return
    if "_target_" in node:
        try:
            target = resolve_target(node["_target_"])
        except ConfigError as error:
            yield f"{path}._target_", str(error)
            return
        yield from _signature_faults(target, node, path)
    for key, value in node.items():
        yield from _target_faults(value, f"{path}.{key}" if path else str(key))


def resolve_target(name: object) -> type:
    """Import what a `_target_` names.

    Args:
        name: A dotted name.

    Returns:
        The class.

    Raises:
        ConfigError: If there is no such class, or it is not one that a config may build.
    """
    if not isinstance(name, str) or not name.startswith(ALLOWED):
        msg = f"received {name!r}; only classes of {', '.join(prefix.rstrip('.') for prefix in ALLOWED)} may be built"
        raise ConfigError(msg)
    module_name, _, attribute = name.rpartition(".")
    try:
        module = importlib.import_module(module_name)
    except ImportError as error:
        msg = f"received {name!r}; cannot import {module_name}: {error}"
        raise ConfigError(msg) from error
    found = getattr(module, attribute, None)
    if found is None:
        near = get_close_matches(attribute, dir(module), n=3)
        msg = f"received {name!r}; {module_name} has no {attribute}{', but ' + ' and '.join(near) if near else ''}"
        raise ConfigError(msg)
    real = f"{getattr(found, '__module__', '?')}.{getattr(found, '__qualname__', '?')}"
    if not inspect.isclass(found) or not real.startswith(ALLOWED):
        msg = f"received {name!r}, which is {real}; only classes of Thaw, lightning, torch and torchmetrics may be built"
        raise ConfigError(msg)
    return found


def _signature_faults(target: type, node: dict[str, Any], path: str) -> Iterator[tuple[str, str]]:
    parameters = _parameters(target)
    arguments = {key: value for key, value in node.items() if key not in _HYDRA_KEYS}
    open_ended = any(parameter.kind is parameter.VAR_KEYWORD for parameter in parameters.values())
    named = [name for name, p in parameters.items() if p.kind not in (p.VAR_KEYWORD, p.VAR_POSITIONAL)]
    for key in arguments:
        if key not in named and not open_ended:
            yield f"{path}.{key}", f"unknown key of {target.__name__}; {nearest(str(key), named)}"
    if not node.get("_partial_"):
        for name in named:
            if parameters[name].default is inspect.Parameter.empty and name not in arguments and not node.get("_args_"):
                yield f"{path}.{name}", f"is needed by {target.__name__} and missing"
    hints = _hints(target)
    for key, value in arguments.items():
        if key in hints and not (isinstance(value, dict) and "_target_" in value):
            yield from _value_faults(value, hints[key], f"{path}.{key}")


def _initialisers(target: type) -> list[type]:
    """The classes whose constructors read a config's keys: ours pass what they do not name to their base."""
    classes = [kind for kind in target.__mro__ if "__init__" in vars(kind)]
    for count, kind in enumerate(classes, start=1):
        passes_on = any(p.kind is p.VAR_KEYWORD for p in inspect.signature(kind).parameters.values())
        if not (passes_on and kind.__module__.startswith(_OURS)):
            return classes[:count]
    return classes


def _parameters(target: type) -> dict[str, inspect.Parameter]:
    merged: dict[str, inspect.Parameter] = {}
    kinds = _initialisers(target)
    for kind in kinds:
        for name, parameter in inspect.signature(kind).parameters.items():
            if parameter.kind is not parameter.VAR_KEYWORD or kind is kinds[-1]:
                merged.setdefault(name, parameter)
    return merged


def _hints(target: type) -> dict[str, Any]:
    merged: dict[str, Any] = {}
    for kind in _initialisers(target):
        initialiser: Callable[..., None] = inspect.unwrap(kind.__init__)  # type: ignore[misc]
        with suppress(NameError, TypeError):  # names that exist only for type checkers
            merged = {**typing.get_type_hints(initialiser), **merged}
    return merged


def _value_faults(value: object, hint: Any, path: str) -> Iterator[tuple[str, str]]:  # noqa: ANN401 - any annotation
    """Hold a value against its annotation, as far as that speaks of plain values."""
    union = typing.get_origin(hint) in (typing.Union, types.UnionType)
    members = typing.get_args(hint) if union else (hint,)
    mappings = [member for member in members if typing.is_typeddict(member)]
    if isinstance(value, dict) and mappings:
        known = typing.get_type_hints(mappings[0])
        for key in value:
            if key not in known:
                yield f"{path}.{key}", f"unknown key; {nearest(str(key), list(known))}"
            else:
                yield from _value_faults(value[key], known[key], f"{path}.{key}")
        for key in mappings[0].__required_keys__ - value.keys():
            yield f"{path}.{key}", "is missing"
        return
    if all(_fits(value, member) is False for member in members):
        wanted = " or ".join(_name(member) for member in members)
        yield path, f"received {value!r}; {wanted} is needed"


def _fits(value: object, hint: Any) -> bool | None:  # noqa: ANN401 - any annotation
    """Whether a value fits; None where the annotation says nothing about plain values."""
    origin = typing.get_origin(hint)
    if origin is Literal:
        return value in typing.get_args(hint)
    if hint in (type(None), None):
        return value is None
    plain = origin or hint
    if plain is float:
        return isinstance(value, int | float) and not isinstance(value, bool)
    if plain is int:
        return isinstance(value, int) and not isinstance(value, bool)
    if plain in (bool, str, list, dict):
        return isinstance(value, plain)
    return False if typing.is_typeddict(hint) else None


def _name(hint: Any) -> str:  # noqa: ANN401 - any annotation
    if typing.get_origin(hint) is Literal:
        return "one of " + ", ".join(str(value) for value in typing.get_args(hint))
    if hint is type(None):
        return "null"
    return str(getattr(hint, "__name__", hint)) if not typing.is_typeddict(hint) else "a mapping"
