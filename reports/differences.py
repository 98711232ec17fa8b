"""How runs differ: their settings, labels made from these, and their losses."""

import json
from collections.abc import Sequence
from typing import Any

from reports.groups import settings
from reports.record import RunRecord
from run_folders.nested import leaves, value_at

# They say where a run is and how it was written, not what it trained.
_NO_SETTINGS = ("name", "format")
_TARGET = "._target_"
_ABSENT = "-"
_MAX_VALUE = 200  # characters
_MAX_LABEL = 60  # characters
_MAX_LABELLED = 3  # settings


def differing_settings(runs: Sequence[RunRecord]) -> dict[str, list[str]]:
    """Return the dotted keys of the settings that differ, and their values in each run as text.

    A run without config.yaml, or without the key, has `-`. A key that repeats another one, such as
    `data.seed`, is left out.
    """
    found = [settings(run.config) for run in runs]
    stated = [values for values in found if values]
    differing: dict[tuple[str, ...], str] = {}
    for key in dict.fromkeys(key for values in stated for key in values):
        texts = [_text(values[key]) if key in values else _ABSENT for values in found]
        known = {text for text, values in zip(texts, found, strict=True) if values}
        if len(known) > 1 and key not in _NO_SETTINGS:
            differing.setdefault((key.rpartition(".")[2], *texts), key)
    return {
        key: [_cut(text) for text in texts]
        for (_, *texts), key in sorted(differing.items(), key=lambda entry: entry[1])
    }


def _text(value: Any) -> str:  # noqa: ANN401 - any value of a config
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False, default=str)


def _cut(text: str) -> str:
    return text if len(text) <= _MAX_VALUE else f"{text[:_MAX_VALUE]}..."


def short_labels(differing: dict[str, list[str]]) -> list[str] | None:
    """Return a label for each run, such as `loss=FocalLoss lr=0.001`.

    Args:
        differing: What `differing_settings` returns.

    Returns:
        The labels; None if they would be long or equal.
    """
    parts = [key.removesuffix(_TARGET) for key in differing if key.endswith(_TARGET)]
    labelled = {
        key.removesuffix(_TARGET): values
        for key, values in differing.items()
        # The settings of different classes follow from the classes.
        if key.endswith(_TARGET) or not any(key.startswith(f"{part}.") for part in parts)
    }
    if not 0 < len(labelled) <= _MAX_LABELLED:
        return None
    last = [key.rpartition(".")[2] for key in labelled]
    names = [
        name if last.count(name) == 1 else key for key, name in zip(labelled, last, strict=True)
    ]
    classes = [f"{key}{_TARGET}" in differing for key in labelled]
    labels = [
        " ".join(
            f"{name}={value.rpartition('.')[2] if is_class else value}"
            for name, value, is_class in zip(names, values, classes, strict=True)
        )
        for values in zip(*labelled.values(), strict=True)
    ]
    fits = len(set(labels)) == len(labels) and max(map(len, labels)) <= _MAX_LABEL
    return labels if fits else None


def have_same_loss(runs: Sequence[RunRecord]) -> bool:
    """Return whether no record says that the losses differ in their class or its settings."""
    classes = {run.metrics["loss"] for run in runs if run.metrics.get("loss")}
    stated = [value_at(run.config, "model.loss") for run in runs]
    chosen = {repr(sorted(leaves(loss).items())) for loss in stated if isinstance(loss, dict)}
    return len(classes) <= 1 and len(chosen) <= 1
