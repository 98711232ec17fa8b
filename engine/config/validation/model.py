"""Check the model as a whole: its kind of task is known, and each of its parts is a node."""

from collections.abc import Iterator
from typing import Any

from engine.config.composing.groups import groups
from engine.config.composing.sources import PARTS, choices_without_effect
from engine.config.errors import ConfigError
from engine.config.places import resolve_target
from engine.config.signatures import Fault
from run_folders.kinds import KindError, kind_named, load_part


def choice_faults() -> Iterator[Fault]:
    """Check that each option of a part that was typed has an effect."""
    for part, file in choices_without_effect():
        yield (
            f"model.{part}",
            f"{part}=... has no effect, because {file} sets the class; "
            f"state `override /{part}: ...` in the defaults list of that file",
        )


def kind_faults(values: dict[str, Any]) -> Iterator[Fault]:
    """Check that the kind of a task exists, with its parts of the engine and of the reports."""
    try:
        task = resolve_target(values["model"]["_target_"], "model")
    except (ConfigError, KeyError, TypeError):
        return
    if not hasattr(task, "kind"):
        yield "model._target_", f"received {task.__name__}, which states no kind of task (`kind`)"
        return
    try:
        kind = kind_named(task.kind)
        for dotted in (kind.results, kind.page):
            load_part(dotted)
    except KindError as error:
        yield "model._target_", f"received {task.__name__}: {error}"


def part_faults(values: dict[str, Any]) -> Iterator[Fault]:
    """Check that each part of the model is a node."""
    model = values.get("model")
    if not isinstance(model, dict):
        return
    for part in sorted(PARTS.intersection(model)):
        node = model[part]
        if not (isinstance(node, dict) and "_target_" in node):
            options = ", ".join(groups()[part])
            advice = (
                f"choose an option of the group: {options}; in a file: override /{part}: OPTION"
            )
            yield f"model.{part}", f"received {node!r}; {advice}"
