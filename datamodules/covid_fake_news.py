"""Constraint@AAAI2021: COVID-19 fake news in English tweets (6420 train, 2140 val, 2140 test)."""

from collections.abc import Iterable
from dataclasses import replace

from datamodules.reading.errors import DataError
from datamodules.reading.rows import Row
from datamodules.reading.sources import hub_table
from datamodules.text import TextDataModule

# Names of the text column in copies of the dataset.
_TEXT_COLUMNS = ("tweet", "text", "content")


class CovidFakeNewsDataModule(TextDataModule):
    """The dataset as published; class 0 is fake and class 1 is real."""

    def rows_from_hub(self, split: str) -> Iterable[Row]:
        """Return the rows of a copy on the hub, with its text column renamed.

        The id column may be missing.
        """
        columns, rows, _ = hub_table(str(self.hub), split)
        reader = self.reader
        text = next(
            (name for name in (reader.text_column, *_TEXT_COLUMNS) if name in columns), None
        )
        if text is None or not set(reader.labels.columns) <= set(columns):
            msg = (
                f"{self.hub} on the hub has the columns {', '.join(columns)}; "
                "set data.text_column and label_column"
            )
            raise DataError(msg)
        if reader.id_column not in columns:
            self.reader = replace(reader, id_column=None)
        return (
            Row(row.index, None, {**row.values, reader.text_column: row.values[text]})
            for row in rows
        )
