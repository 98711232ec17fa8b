"""The files of the schemas: one for each config group, and the definitions that they share."""

import json
from collections.abc import Collection, Sequence
from importlib.metadata import version
from pathlib import Path

from engine.config.composing.paths import CONFIGS
from engine.config.composing.sources import PARTS
from engine.config.places import PLACES
from engine.config.schemas.definitions import KEYS, definitions
from engine.config.schemas.hints import Schema
from run_folders.files import write_text

FOLDER = CONFIGS / "schemas"
_DRAFT = "http://json-schema.org/draft-07/schema#"  # newer drafts need a new language server
_LIBRARIES = ("lightning", "timm", "torch")
# Group -> the definition of the node that its files hold.
_NODES = {
    **{key: key for key in KEYS if key != "hydra"},
    **{part: f"model.{part}" for part in sorted(PARTS)},
}
# Nodes that a file may leave empty, so that nothing is built.
_MAY_BE_EMPTY = ("depth",)
# Groups whose files are never nodes, and the file of the whole config.
_WHOLE = ("experiment", "sweep", "debug", "train")


def schema_files(own: Sequence[str] = ()) -> dict[str, str]:
    """Return file name -> text of each schema.

    Args:
        own: Own packages whose classes are described too.
    """
    libraries = ", ".join(f"{name} {version(name)}" for name in _LIBRARIES)
    found = definitions(own)
    schemas: dict[str, Schema] = {
        "definitions": {
            "$schema": _DRAFT,
            "$comment": f"The classes of {libraries}.",
            "definitions": found,
        },
        **{name: {"$schema": _DRAFT, **_reference("config")} for name in _WHOLE},
        **{group: {"$schema": _DRAFT, **_group(node, found)} for group, node in _NODES.items()},
        "hydra": {"$schema": _DRAFT, **_reference("hydra")},
    }
    return {f"{name}.json": f"{_text(schema)}\n" for name, schema in schemas.items()}


def write_schemas(folder: Path = FOLDER, own: Sequence[str] = ()) -> list[Path]:
    """Write the schemas.

    Args:
        folder: The folder of the schemas; it is created.
        own: Own packages whose classes are described too.

    Returns:
        The files.
    """
    folder.mkdir(parents=True, exist_ok=True)
    files = {folder / name: text for name, text in schema_files(own).items()}
    for file, text in files.items():
        write_text(file, text)
    return list(files)


def _text(schema: Schema) -> str:
    """Return the text of a schema, with a line for each key and each definition."""
    lines = [
        f"{json.dumps(key)}: "
        f"{_text(value) if key == 'definitions' else json.dumps(value, ensure_ascii=False)}"
        for key, value in schema.items()
    ]
    return "{\n" + ",\n".join(lines) + "\n}"


def _reference(name: str) -> Schema:
    return {"$ref": f"definitions.json#/definitions/{name}"}


def _group(node: str, known: Collection[str]) -> Schema:
    """Return the schema of a group whose files hold a node, or a part of the whole config.

    A file with `# @package _global_` has a key such as `data`, which no node has.

    Args:
        node: The definition of the node.
        known: The names of all definitions.
    """
    refused = PLACES[node].refused if node in PLACES else ()
    schema = _reference(node)
    if f"{node}.complete" in known:
        inherits = {"required": ["defaults"]}
        schema = {"allOf": [schema, {"if": inherits, "else": _reference(f"{node}.complete")}]}
    if node in _MAY_BE_EMPTY:
        schema = {"anyOf": [{"maxProperties": 0}, schema]}
    whole = [{"required": [key]} for key in (*KEYS, "cache") if key not in refused]
    return {"if": {"anyOf": whole}, "then": _reference("config"), "else": schema}
