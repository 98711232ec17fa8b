"""Constraint@AAAI2021: COVID-19 fake news in English tweets (6420 train, 2140 val, 2140 test)."""

from datamodules.errors import DataError
from datamodules.sources import hub_rows
from datamodules.tables import Row
from datamodules.text import TextDataModule

# What copies of the dataset call the text.
_TEXT_COLUMNS = ("tweet", "text", "content")


class CovidFakeNewsDataModule(TextDataModule):
    """The dataset as published; class 0 is fake and class 1 is real."""

    def _from_hub(self, split: str) -> list[Row]:
        rows = list(hub_rows(str(self.hub), split))
        columns = list(rows[0].values) if rows else []
        found = next((name for name in (self.text_column, *_TEXT_COLUMNS) if name in columns), None)
        if found is None or self.label_column not in columns:
            msg = f"{self.hub} on the hub has the columns {', '.join(columns)}; set data.text_column and label_column"
            raise DataError(msg)
        return [Row(row.index, None, self._renamed(row.values, found)) for row in rows]

    def _renamed(self, values: dict[str, object], text_column: str) -> dict[str, object]:
        identifier = {self.id_column: values[self.id_column]} if self.id_column in values else {}
        if self.id_column is not None and not identifier:
            self.id_column = None
        return {**identifier, self.text_column: values[text_column], self.label_column: values[self.label_column]}
