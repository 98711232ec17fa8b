"""The schema of a node at each place of the config, and of each class that it may name."""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from engine.config.composing.paths import CONFIGS
from engine.config.composing.sources import PARTS
from engine.config.places import PLACES
from engine.config.precision import AUTO, PRECISIONS
from engine.config.schemas.classes import (
    Target,
    class_schema,
    descriptions,
    required_keys,
    targets_at,
)
from engine.config.schemas.descriptions import comments
from engine.config.schemas.hints import Schema, any_of, or_unresolved
from engine.config.signatures import OURS

# Lightning's names too: `precision_fault` accepts them.
PRECISION_NAMES = [AUTO, *PRECISIONS, 16, 32, 64, "16", "32", "64", "bf16", None]


def reference(name: str) -> Schema:
    """Return the schema that refers to a definition."""
    return {"$ref": f"#/definitions/{name}"}


def node_definitions(path: str, own: Sequence[str]) -> dict[str, Schema]:
    """Return name -> definition, of a place and of each class that it may name.

    `PATH.complete` is what a file of a group has to state unless it inherits from another one.

    Args:
        path: The place's key in `PLACES`.
        own: Own packages whose classes are described too.
    """
    targets = targets_at(path, own)
    remarks = comments(CONFIGS / "trainer" / "default.yaml") if path == "trainer" else {}
    classes = {
        name: class_schema(target, path, {**remarks, **descriptions(target, (*OURS, *own))})
        for name, target in targets.items()
    }
    if path == "trainer":
        for schema in classes.values():
            schema["properties"]["precision"] |= or_unresolved({"enum": PRECISION_NAMES})
    ours = [s for name, s in classes.items() if name.partition(".")[0] in (*OURS, *own)]
    node = {
        "type": "object",
        "properties": {"_target_": or_unresolved(_target(path, list(targets)))},
        "allOf": [
            *({"if": _named(name), "then": reference(name)} for name in targets),
            {
                "if": {"required": ["_target_"]},
                "else": {
                    "properties": _keys_of_any(classes.values()),
                    # A key of Lightning's open classes would hide a typo.
                    "additionalProperties": not classes
                    or any(schema["additionalProperties"] for schema in ours),
                },
            },
        ],
    }
    group = path.rpartition(".")[2] in PARTS or "." not in path
    complete = {f"{path}.complete": _complete(path, targets)} if group else {}
    return {**classes, path: node, **complete}


def _target(path: str, names: list[str]) -> Schema:
    """Return the schema of `_target_`: the known names, and those that cannot be known."""
    place = PLACES[path]
    foreign = [] if place.exact else [m for m in place.modules if m.partition(".")[0] not in OURS]
    others = [rf"{module}\.\w+\..+" for module in foreign]
    if place.own_packages:
        known = {module.partition(".")[0] for other in PLACES.values() for module in other.modules}
        others.append(rf"(?!({'|'.join(sorted(known))})\.)\w+\..+")
    pattern = [{"type": "string", "pattern": f"^({'|'.join(others)})$"}] if others else []
    return any_of([*([{"enum": names}] if names else []), *pattern])


def _named(name: str) -> Schema:
    return {"properties": {"_target_": {"const": name}}, "required": ["_target_"]}


def _keys_of_any(classes: Iterable[Schema]) -> dict[str, Any]:
    """Return the keys of a node whose class another file names: those of any class."""
    merged: dict[str, list[Any]] = {}
    for schema in classes:
        for key, value in schema["properties"].items():
            merged.setdefault(key, []).append(value)
    return {key: _merged(values) for key, values in merged.items()}


def _merged(values: list[Any]) -> Any:  # noqa: ANN401 - a schema, or False
    """Return the schema of a key that several classes have; False if none may set it."""
    schemas = [value for value in values if value is not False]
    if not schemas:
        return False
    plain = any_of([{k: v for k, v in s.items() if k != "description"} for s in schemas])
    described = [s["description"] for s in schemas if "description" in s]
    return ({"description": described[0]} if described else {}) | plain


def _complete(path: str, targets: Mapping[str, Target]) -> Schema:
    needed = {name: required_keys(target, path) for name, target in targets.items()}
    cases = [
        {"if": _named(name), "then": {"required": keys}} for name, keys in needed.items() if keys
    ]
    return {"required": ["_target_"]} | ({"allOf": cases} if cases else {})
