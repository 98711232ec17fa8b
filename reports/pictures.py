"""Pictures of test samples, embedded in the page of a run."""

import base64
from typing import Any

from reports.record import RunRecord

_MAX_PER_CLASS = 8


def class_pictures(run: RunRecord) -> list[dict[str, Any]]:
    """Return the pictures of the first test samples of each class.

    Args:
        run: The run.

    Returns:
        Dicts with name and pictures (source, title), in the order of the classes. The list is empty
        if the run has no pictures.
    """
    table = run.predictions
    if table is None or not run.pictures:
        return []
    return [
        {
            "name": name,
            "pictures": [
                {"source": source(run.pictures[i]), "title": f"index {i}"}
                for i in _pictured_indices(run, name)[:_MAX_PER_CLASS]
            ],
        }
        for name in run.test["classes"]
    ]


def _pictured_indices(run: RunRecord, name: str) -> list[int]:
    """Return the indices of a class's samples up to the first sample without a picture."""
    assert run.predictions is not None  # noqa: S101 - tells the type checker
    indices = []
    for index in run.predictions.loc[run.predictions["label"] == name, "index"].tolist():
        if index not in run.pictures:
            break
        indices.append(index)
    return indices


def source(picture: bytes) -> str:
    """Return the data URI of a PNG or WebP file, for the `src` of an image."""
    kind = "png" if picture.startswith(b"\x89PNG") else "webp"
    return f"data:image/{kind};base64," + base64.b64encode(picture).decode("ascii")
