"""Pictures of test samples on a run's page, embedded in it."""

import base64
from typing import Any

from reports.record import RunRecord

_MOST = 8  # pictures of a class


def class_pictures(run: RunRecord) -> list[dict[str, Any]]:
    """The first test samples of each class, those that have a picture.

    Args:
        run: The run.

    Returns:
        Dicts with name and pictures (source, title), in the order of the classes.
    """
    table = run.predictions
    if table is None or not run.pictures:
        return []
    return [
        {
            "name": name,
            "pictures": [
                {"source": source(run.pictures[i]), "title": f"index {i}"}
                for i in _of_class(run, name)[:_MOST]
            ],
        }
        for name in run.test["classes"]
    ]


def _of_class(run: RunRecord, name: str) -> list[int]:
    """Indices of a class's samples from the first on, as long as each has a picture."""
    assert run.predictions is not None  # noqa: S101 - tells the type checker
    indices = []
    for index in run.predictions.loc[run.predictions["label"] == name, "index"].tolist():
        if index not in run.pictures:
            break
        indices.append(index)
    return indices


def source(picture: bytes) -> str:
    """What stands in the `src` of an image, PNG or WebP."""
    kind = "png" if picture.startswith(b"\x89PNG") else "webp"
    return f"data:image/{kind};base64," + base64.b64encode(picture).decode("ascii")
