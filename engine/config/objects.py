"""Check the nodes of a config that become objects, whether it is composed or from a run folder."""

import inspect
from collections.abc import Collection, Iterator, Mapping
from typing import Any

from engine.config.errors import ConfigError
from engine.config.places import injected_into, place_of, resolve_target
from engine.config.signatures import Fault, signature_faults
from run_folders.errors import shortened


def object_faults(node: object, path: str = "") -> Iterator[Fault]:
    """Check every node with a `_target_`: its place, its class, its keys and their values.

    Args:
        node: A resolved config, or a part of it.
        path: The dotted key of the part.
    """
    if isinstance(node, list):
        for index, value in enumerate(node):
            yield from object_faults(value, f"{path}.{index}")
    if not isinstance(node, dict):
        return
    if "_target_" in node:
        try:
            target = resolve_target(node["_target_"], path)
        except ConfigError as error:
            yield f"{path}._target_", str(error)
        else:
            yield from special_key_faults(node, path)
            yield from protocol_faults(target, node, path)
            place = place_of(path)
            known = {key: v for key, v in node.items() if not place or key not in place.refused}
            yield from signature_faults(target, known, path, injected_into(path))
    for key, value in node.items():
        yield from object_faults(value, f"{path}.{key}" if path else str(key))


def special_key_faults(node: Mapping[str, Any], path: str) -> Iterator[Fault]:
    """Yield a fault for each key that Hydra's `instantiate` would interpret, except `_target_`."""
    for key in node:
        if str(key).startswith("_") and key != "_target_":
            yield f"{path}.{key}", "no place of the config takes this key; leave it out"


def protocol_faults(target: Any, node: Mapping[str, Any], path: str) -> Iterator[Fault]:  # noqa: ANN401 - a class, or a function
    """Check that a class or function takes what the engine passes, and no key is reserved.

    Args:
        target: What the node names.
        node: The node's keys and values.
        path: The node's dotted key.

    Yields:
        Dotted key and fault.
    """
    place = place_of(path)
    if place is None:
        return
    for key in node:
        if key in place.refused:
            yield f"{path}.{key}", f"cannot be set here: {place.refused[key]}"
        elif key in place.injected:
            yield f"{path}.{key}", "cannot be set here: the engine passes it"
    parameters = inspect.signature(target).parameters
    open_ended = any(p.kind is p.VAR_KEYWORD for p in parameters.values())
    wanted = place.injected if place.base else _schedule_arguments(parameters)
    missing = [name for name in wanted if name not in parameters]
    if missing and not open_ended:
        yield (
            f"{path}._target_",
            f"received {target.__name__}, which does not take {' and '.join(missing)}; "
            f"the engine passes {', '.join(wanted)}",
        )


def _schedule_arguments(parameters: Collection[str]) -> tuple[str, ...]:
    """Return the arguments of a schedule: those of a scheduler's builder, or of a pure function."""
    return ("optimizer", "steps_per_epoch") if "optimizer" in parameters else ("step", "total")


def class_count_faults(values: Mapping[str, Any]) -> Iterator[Fault]:
    """Check that data and model have the same number of classes.

    Args:
        values: A config with the nodes `data` and `model`, resolved.
    """
    data, model = values.get("data"), values.get("model")
    data, model = (node if isinstance(node, dict) else {} for node in (data, model))
    classes, count = data.get("classes"), data.get("num_classes")
    if isinstance(classes, list) and count not in (None, len(classes)):  # None: not counted yet
        named = shortened(map(str, classes))
        yield "data.num_classes", f"received {count!r}; data.classes names {len(classes)}: {named}"
    if "num_classes" in model and model["num_classes"] != count:
        yield (
            "model.num_classes",
            f"received {model['num_classes']!r}; the data has {count} classes",
        )
