"""The definitions that the schemas of all groups share: classes, places, and the whole config."""

from collections.abc import Sequence

from engine.config.composing.paths import CONFIGS
from engine.config.places import PLACES
from engine.config.schemas.descriptions import comments
from engine.config.schemas.hints import Schema, mapping_schema, or_unresolved
from engine.config.schemas.nodes import node_definitions, reference
from engine.config.schemas.roots import Dimension, Paths, Root, Search

# Keys of the whole config that a group sets.
KEYS = ("data", "model", "trainer", "depth", "callbacks", "logger", "paths", "hydra")


def definitions(own: Sequence[str] = ()) -> dict[str, Schema]:
    """Return name -> definition.

    Args:
        own: Own packages whose classes are described too.
    """
    found = {
        "unresolved": {"type": "string", "pattern": r"^\?\?\?$|\$\{"},
        "defaults": _defaults_list(),
        "paths": _paths(),
        "hydra": _hydra(),
        "config": _config(),
    }
    for path in PLACES:
        found |= node_definitions(path, own)
    for group in ("callbacks", "logger"):
        found[group] = {
            "type": "object",
            "properties": {"defaults": reference("defaults")},
            "additionalProperties": or_unresolved(reference(f"{group}.*")),
        }
        found[f"{group}.complete"] = {"additionalProperties": {"required": ["_target_"]}}
    return dict(sorted(found.items()))


def _paths() -> Schema:
    schema = mapping_schema(Paths, comments(CONFIGS / "paths" / "default.yaml"))
    schema["properties"]["defaults"] = reference("defaults")
    return schema


def _hydra() -> Schema:
    """Return the schema of Hydra's own node: the keys of a search, and whatever else."""
    space = {"type": "object", "additionalProperties": or_unresolved(mapping_schema(Dimension))}
    search = mapping_schema(Search)
    # The last two are keys of Hydra's own sweeper.
    search["properties"] |= {
        "space": or_unresolved(space),
        "_target_": {},
        "max_batch_size": {},
        "params": {},
    }
    properties = {"sweeper": search, "defaults": reference("defaults")}
    return {"type": "object", "properties": properties}


def _config() -> Schema:
    """Return the schema of a file whose keys are those of the whole config."""
    schema = mapping_schema(Root, comments(CONFIGS / "train.yaml"))
    schema["properties"] |= {key: or_unresolved(reference(key)) for key in KEYS}
    schema["properties"]["defaults"] = reference("defaults")
    return schema


def _defaults_list() -> Schema:
    """Return the schema of Hydra's defaults list."""
    groups = sorted({file.parent.name for file in CONFIGS.glob("*/*.yaml")})
    known = f"override /?({'|'.join(groups)})(/\\w+)?|(?!override ).+"
    choice = {
        "type": "object",
        "propertyNames": {"pattern": f"^({known})(@.*)?$"},
        "additionalProperties": {"type": ["string", "null", "array"]},
        "minProperties": 1,
        "maxProperties": 1,
    }
    return {"type": "array", "items": {"anyOf": [{"type": "string"}, choice]}}
