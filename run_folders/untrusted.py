"""Reading of JSON and YAML files that may be damaged, or come from someone else.

Standard library and PyYAML only. `run_folders.memory` checks files of weights,
`reports.tables` reads Parquet, and `datamodules.images.decoding` opens images.
"""

import json
from pathlib import Path
from typing import Any, NoReturn

import yaml

from run_folders.errors import UserError, brief
from run_folders.value_types import type_fault

MAX_JSON = 256 * 2**20  # bytes
MAX_YAML = 4 * 2**20  # bytes; PyYAML reads less than 1 MB in a second
_MAX_DEPTH = 100  # lists and mappings inside each other
_MAX_NODES = 1_000_000  # values of a YAML file with its aliases expanded
_ADVICE = "restore the file, or remove the run folder"


class DamagedFileError(UserError, ValueError):
    """A file that cannot be read, is too large, or has other content than it must have."""


def damaged(path: Path, reason: str, advice: str = _ADVICE) -> DamagedFileError:
    """Return the error for a damaged file."""
    return DamagedFileError(f"{path} is damaged: {reason}; {advice}")


def read_text(path: Path, limit: int, advice: str = _ADVICE) -> str:
    """Read a text file in UTF-8.

    Args:
        path: The file.
        limit: Largest size in bytes.
        advice: What to do about a damaged file.

    Raises:
        DamagedFileError: If it is no regular file, too large, not readable, or not in UTF-8.
    """
    try:
        if path.exists() and not path.is_file():  # reading a pipe could wait forever
            msg = f"{path} is a folder, a pipe or a device, where a file is needed; {advice}"
            raise DamagedFileError(msg)
        with path.open("rb") as file:
            content = file.read(limit + 1)
    except OSError as error:
        msg = f"{path} cannot be read: {error.strerror or brief(error)}; {advice}"
        raise DamagedFileError(msg) from error
    if len(content) > limit:
        reason = f"it has more than {limit:,} bytes, the largest size that is read"
        raise damaged(path, reason, advice)
    try:
        return content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        reason = f"byte {error.start} is {content[error.start]:#04x}, which is not UTF-8"
        raise damaged(path, reason, advice) from error


def read_json(path: Path, expected: Any = Any, advice: str = _ADVICE) -> Any:  # noqa: ANN401
    """Read a JSON file and check the types of its values.

    Args:
        path: The file.
        expected: The type of its content; see `run_folders.value_types.type_fault`.
        advice: What to do about a damaged file.

    Raises:
        DamagedFileError: If the file is damaged.
    """
    text = read_text(path, MAX_JSON, advice)
    try:
        content = json.loads(text, parse_constant=_refuse_constant)
    except RecursionError as error:
        raise damaged(path, _too_deep(), advice) from error
    except ValueError as error:
        raise damaged(path, brief(error), advice) from error
    reason = _too_deep() if _is_too_deep(content) else type_fault(content, expected)
    if reason:
        raise damaged(path, reason, advice)
    return content


def read_yaml(path: Path, expected: Any = Any, advice: str = _ADVICE) -> Any:  # noqa: ANN401
    """Read a YAML file of plain values and check their types.

    Args:
        path: The file.
        expected: The type of its content; see `run_folders.value_types.type_fault`.
        advice: What to do about a damaged file.

    Raises:
        DamagedFileError: If the file is damaged.
    """
    text = read_yaml_text(path, advice)
    try:
        content = yaml.safe_load(text)
    except (yaml.YAMLError, ValueError) as error:  # for example a date of month 13
        raise damaged(path, brief(error), advice) from error
    except (AttributeError, LookupError, TypeError) as error:  # for example `!!bool maybe`
        reason = "a value does not have the type that its tag names"
        raise damaged(path, reason, advice) from error
    reason = type_fault(content, expected)
    if reason:
        raise damaged(path, reason, advice)
    return content


def read_yaml_text(path: Path, advice: str = _ADVICE) -> str:
    """Read a YAML file as text that any YAML library can parse without exhausting the memory.

    Args:
        path: The file.
        advice: What to do about a damaged file.

    Raises:
        DamagedFileError: If the file is not YAML, too large, nested too deeply, or has aliases that
            expand to too many values.
    """
    text = read_text(path, MAX_YAML, advice)
    try:
        reason = _expansion_fault(text)
    except yaml.YAMLError as error:
        raise damaged(path, brief(error), advice) from error
    if reason:
        raise damaged(path, reason, advice)
    return text


def _expansion_fault(text: str) -> str:
    """Return why a YAML text would need too much memory, or an empty string.

    The events of the parser are counted, an alias with all values of its anchor.
    """
    open_nodes: list[tuple[str | None, int]] = []  # anchor, and count of values before it
    sizes: dict[str, int] = {}
    count = 0
    for event in yaml.parse(text, Loader=getattr(yaml, "CSafeLoader", yaml.SafeLoader)):
        match event:
            case yaml.AliasEvent():
                if event.anchor not in sizes:
                    return f"the alias *{event.anchor} stands before or inside of its anchor"
                count += sizes[event.anchor]
            case yaml.ScalarEvent():
                count += 1
                if event.anchor is not None:
                    sizes[event.anchor] = 1
            case yaml.CollectionStartEvent():
                open_nodes.append((event.anchor, count))
                sizes.pop(event.anchor, None)  # type: ignore[arg-type]
                count += 1
            case yaml.CollectionEndEvent():
                anchor, before = open_nodes.pop()
                if anchor is not None:
                    sizes[anchor] = count - before
        if len(open_nodes) > _MAX_DEPTH:
            return _too_deep()
        if count > _MAX_NODES:
            return f"it has more than {_MAX_NODES:,} values, counting the expansion of its aliases"
    return ""


def _is_too_deep(content: Any) -> bool:  # noqa: ANN401 - any JSON
    level = [content]
    for _ in range(_MAX_DEPTH):
        level = [child for node in level for child in _children(node)]
    return bool(level)


def _children(node: Any) -> list[Any]:  # noqa: ANN401 - any JSON
    if isinstance(node, dict):
        return [*node.values()]
    return node if isinstance(node, list) else []


def _too_deep() -> str:
    return f"its values are nested more than {_MAX_DEPTH} levels deep"


def _refuse_constant(name: str) -> NoReturn:
    msg = f"{name} is not JSON"
    raise ValueError(msg)
