"""A type hint as a JSON schema, with the meaning that `engine.config.signatures` gives it."""

import json
import os
import types
import typing
from collections.abc import Mapping
from typing import Annotated, Any, Literal, NotRequired, Required

from annotated_types import Ge, GroupedMetadata, Gt, Le, Lt

from engine.config.schemas.descriptions import sections

Schema = dict[str, Any]

UNIONS = (typing.Union, types.UnionType)
_ANYTHING: Schema = {}
_PLAIN: dict[Any, Schema] = {
    str: {"type": "string"},
    os.PathLike: {"type": "string"},
    bool: {"type": "boolean"},
    int: {"type": "integer"},
    float: {"type": "number"},
    dict: {"type": "object"},
    type(None): {"type": "null"},
    None: {"type": "null"},
}
_BOUNDS = {
    Ge: ("ge", "minimum"),
    Gt: ("gt", "exclusiveMinimum"),
    Le: ("le", "maximum"),
    Lt: ("lt", "exclusiveMaximum"),
}


def schema_of(hint: Any) -> Schema:  # noqa: ANN401 - any annotation
    """Return the schema of the values that fit an annotation.

    Args:
        hint: The annotation. One that does not describe plain values accepts everything.
    """
    origin, arguments = typing.get_origin(hint), typing.get_args(hint)
    if origin is Annotated:
        return schema_of(arguments[0]) | _bounds(arguments[1:])
    if origin in (Required, NotRequired):
        return schema_of(arguments[0])
    if origin is Literal:
        return {"enum": list(arguments)}
    if origin in UNIONS:
        return any_of([schema_of(member) for member in arguments])
    if typing.is_typeddict(hint):
        return mapping_schema(hint)
    if (origin or hint) is list:
        return {"type": "array"} | (
            {"items": or_unresolved(schema_of(arguments[0]))} if arguments else {}
        )
    return dict(_PLAIN.get(origin or hint, _ANYTHING))


def mapping_schema(mapping: Any, described: Mapping[str, str] | None = None) -> Schema:  # noqa: ANN401 - a TypedDict
    """Return the schema of a TypedDict. No key is required: a config sets a part of them.

    Args:
        mapping: The TypedDict.
        described: Dotted key -> description, where its docstring has none.
    """
    described = {**(described or {}), **sections(mapping.__doc__ or "", "Attributes")}
    properties = {}
    for key, hint in typing.get_type_hints(mapping, include_extras=True).items():
        inner = {
            name.removeprefix(f"{key}."): text
            for name, text in described.items()
            if name.startswith(f"{key}.")
        }
        schema = mapping_schema(hint, inner) if typing.is_typeddict(hint) else schema_of(hint)
        properties[key] = or_unresolved(schema, described.get(key))
    return {"type": "object", "properties": properties, "additionalProperties": False}


def or_unresolved(schema: Schema, description: str | None = None) -> Schema:
    """Return a schema that also accepts `???` and text with an interpolation."""
    described = {"description": description} if description else {}
    if schema == _ANYTHING:
        return described
    members = schema["anyOf"] if schema.keys() == {"anyOf"} else [schema]
    return {**described, "anyOf": [*members, {"$ref": "#/definitions/unresolved"}]}


def any_of(schemas: list[Schema]) -> Schema:
    """Return the schema of what fits one of several schemas; equal ones stand once.

    They are sorted: `typing` may return the members of a union in the order of an equal one.
    """
    unique = [schema for i, schema in enumerate(schemas) if schema not in schemas[:i]]
    unique.sort(key=lambda schema: json.dumps(schema, sort_keys=True))
    if _ANYTHING in unique:
        return {}
    return unique[0] if len(unique) == 1 else {"anyOf": unique}


def _bounds(metadata: tuple[Any, ...]) -> Schema:
    members = [
        member
        for group in metadata
        for member in (group if isinstance(group, GroupedMetadata) else (group,))
    ]
    return {
        _BOUNDS[type(member)][1]: getattr(member, _BOUNDS[type(member)][0])
        for member in members
        if type(member) in _BOUNDS
    }
