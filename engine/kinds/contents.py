"""Tables and pictures that several kinds of task record or publish to the dashboards."""

from collections.abc import Callable, Sequence
from typing import Any

import pandas as pd

from datamodules.base import TransferDataModule
from lightning_modules.loggers.base import Confusion, Picture, Table
from reports.record import RunRecord
from run_folders.nested import leaves

_MOST_PICTURES = 60


def table_of(table: pd.DataFrame) -> Table:
    """Return a table of plain values; missing values are None."""
    plain = table.astype(object).where(table.notna(), None)
    return Table([str(column) for column in table], plain.to_numpy().tolist())


def table_of_dicts(rows: list[dict[str, Any]]) -> Table:
    """Return a table with a column for each key."""
    columns = list(dict.fromkeys(column for row in rows for column in row))
    return Table(columns, [[row.get(column) for column in columns] for row in rows])


def class_table(run: RunRecord) -> Table:
    """Return the metrics of each class."""
    return table_of_dicts(
        [{"class": name, **leaves(metrics)} for name, metrics in run.test["per_class"].items()]
    )


def confusion(run: RunRecord) -> Confusion:
    """Return the confusion matrix."""
    return Confusion(run.test["classes"], run.test["confusion_matrix"])


def mistake_pictures(
    run: RunRecord, samples: pd.DataFrame, caption: Callable[[dict[str, Any]], str]
) -> list[Picture]:
    """Return the pictures of the first samples that have one, with captions.

    Args:
        run: The run.
        samples: Samples with the column `index`, the most important first.
        caption: Returns the caption of a row; the index is appended.
    """
    rows: list[dict[str, Any]] = [
        {str(key): value for key, value in row.items()}
        for row in samples.to_dict("records")
        if row["index"] in run.pictures
    ]
    return [
        Picture(run.pictures[row["index"]], f"{caption(row)}, index {row['index']}")
        for row in rows[:_MOST_PICTURES]
    ]


def thumbnails(datamodule: TransferDataModule[Any], indices: Sequence[int]) -> pd.DataFrame | None:
    """Return small pictures of test samples.

    Args:
        datamodule: The datamodule.
        indices: Rows of the samples, in the order of the pictures.

    Returns:
        The columns `index` and `picture`; None if the samples are not images.
    """
    pictures = datamodule.thumbnails("test", indices)
    if not pictures:
        return None
    return pd.DataFrame({"index": list(pictures), "picture": list(pictures.values())})
