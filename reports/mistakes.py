"""Misclassified test samples for the report page."""

from itertools import takewhile
from typing import Any

import pandas as pd

from reports.pictures import source
from reports.record import RunRecord

MAX_MISTAKES = 2000


def misclassified_samples(run: RunRecord) -> pd.DataFrame:
    """Return the misclassified test samples with their confidence, the most confident first.

    The column `reference` has the text of a sample, or the name of its image.
    """
    table = run.predictions
    if table is None:
        return pd.DataFrame(
            {"index": [], "label": [], "prediction": [], "confidence": [], "reference": []}
        )
    wrong = table[table["label"] != table["prediction"]].copy()
    probabilities = [column for column in table.columns if column.startswith("probability_")]
    wrong["confidence"] = wrong[probabilities].max(axis=1)
    wrong["reference"] = wrong[table.columns[-1]]
    return wrong.sort_values(["confidence", "index"], ascending=[False, True])


def misclassified_pictures(run: RunRecord) -> list[dict[str, Any]]:
    """Return the misclassified test samples that have a picture, the most confident first.

    Args:
        run: The run.

    Returns:
        Dicts with index, label, prediction, confidence, name and source (of the picture).
    """
    rows = misclassified_samples(run).to_dict("records") if run.pictures else []
    # Pictures are stored for the most confident mistakes and for the first samples of each class.
    # After the first mistake without a picture only the latter have one: they are left out, so
    # that the list has no gaps.
    rows = list(takewhile(lambda row: row["index"] in run.pictures, rows))
    return [
        {
            "index": int(row["index"]),
            "label": row["label"],
            "prediction": row["prediction"],
            "confidence": float(row["confidence"]),
            "name": str(row["reference"]),
            "source": source(run.pictures[row["index"]]),
        }
        for row in rows
    ]


def mistakes(run: RunRecord) -> list[dict[str, Any]]:
    """Return the misclassified test samples grouped by label and prediction.

    The most frequent pair comes first; within a pair, the most confident sample comes first.

    Args:
        run: The run.

    Returns:
        Dicts with label, prediction, count and rows (index, confidence, text); at most
        `MAX_MISTAKES` rows in total.
    """
    wrong = misclassified_samples(run)
    shown = wrong.head(MAX_MISTAKES)
    kinds = []
    for (label, prediction), group in wrong.groupby(["label", "prediction"], sort=False):
        rows = shown.loc[shown.index.intersection(group.index, sort=False)]
        samples = [
            {
                "index": int(row["index"]),
                "confidence": float(row["confidence"]),
                "text": str(row["reference"]),
            }
            for _, row in rows.iterrows()
        ]
        kinds.append(
            {"label": label, "prediction": prediction, "count": len(group), "rows": samples}
        )
    return sorted(kinds, key=lambda kind: -kind["count"])
