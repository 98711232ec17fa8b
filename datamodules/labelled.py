"""Base of the datamodules whose samples have labels from a table: texts and images."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Generic, Literal, Protocol, TypeVar

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from datamodules.base import Split, TransferDataModule
from datamodules.reading.formats import FoundFormat, TableFormat, find_format
from datamodules.reading.label_settings import check_classes, label_reader
from datamodules.reading.labels import ClassLabels, LabelReader
from datamodules.reading.splits import grouped_split
from datamodules.reading.tables import TEXT_SUFFIXES


class LabelledSplit(Split, Protocol):
    """A split with a label for each sample."""

    @property
    def labels(self) -> Any:  # noqa: ANN401 - a sequence or an array
        """Label of each sample; see `LabelReader`."""

    @property
    def groups(self) -> npt.NDArray[np.int64] | None:
        """Group of each sample, [N]; None if the samples have no groups."""


_Split = TypeVar("_Split", bound=LabelledSplit)


class LabelledDataModule(TransferDataModule[_Split], Generic[_Split]):
    """Base of the datamodules with labels: one class, several labels, or an own kind.

    A subclass with labels of another kind overrides `label_reader`.

    Attributes:
        class_names: Name of class or label 0, 1, ...; empty if the labels are no classes.
        num_classes: Number of classes or labels; 0 if the labels are no classes.
        labels: Reader of the labels.
    """

    def __init__(
        self,
        classes: list[str] | None,
        num_classes: int | None,
        label_column: str | list[str],
        label_separator: str | None,
        val_fraction: float,
        on_bad_rows: Literal["error", "skip"],
        seed: int,
        label_map: Mapping[Any, str] | None = None,
        table_format: TableFormat = TableFormat(),
        test_fraction: float | None = None,
        group_column: str | None = None,
    ) -> None:
        """Store the settings.

        Args:
            classes: Names of class or label 0, 1, ...
            num_classes: Number of classes; other parts of the config refer to it.
            label_column: The label column, or a list with the 0/1 column of each label.
            label_separator: String between the labels of a sample; None for one class.
            val_fraction: Fraction of train that becomes val if there is no val file, 0..1.
            on_bad_rows: Raise an error, or leave bad rows out and list them.
            seed: Seed of the sample order and of the val split.
            label_map: Value in the label column -> name of its class or label.
            table_format: Encoding, delimiter and quoting of the tables.
            test_fraction: Fraction of train that becomes test, 0..1; None if test has a file.
            group_column: Column of train whose equal values stay in one split.

        Raises:
            DataError: If the settings contradict each other.
        """
        super().__init__(val_fraction, on_bad_rows, seed, test_fraction)
        self.group_column = group_column
        self.label_column, self.label_separator = label_column, label_separator
        self.label_map, self.table_format = label_map, table_format
        self.formats: dict[str, FoundFormat] = {}
        self.class_names = list(classes or ())
        if classes or num_classes is not None:
            count = len(self.class_names) if num_classes is None else num_classes
            check_classes(self.class_names, count)
        self.num_classes = len(self.class_names)
        self.labels = self.label_reader()

    def label_reader(self) -> LabelReader:
        """Return the reader of the labels; see `reading.label_settings.label_reader`."""
        return label_reader(
            self.label_column, self.label_separator, self.class_names, self.label_map
        )

    def format_of(
        self, path: Path, split: str, columns: Sequence[str]
    ) -> TableFormat | FoundFormat:
        """Return the format of a table, and keep what was found in a text file for `describe`."""
        if path.suffix.lower() not in TEXT_SUFFIXES or not path.is_file():
            return self.table_format
        self.formats[split] = find_format(path, columns, self.table_format)
        return self.formats[split]

    def describe(self) -> dict[str, Any]:
        """Return the facts of the base class, and those of tables and labels.

        For each split: the format of its table, and the number of groups. For train: the class with
        the most samples.
        """
        facts = super().describe()
        for split, found in self.formats.items():
            if split in facts:
                facts[split]["format"] = str(found)
        for name, split_data in self.splits.items():
            if split_data.groups is not None:
                count = len(np.unique(split_data.groups))
                facts[name] |= {"group_column": self.group_column, "groups": count}
        if "train" in self.splits and isinstance(self.labels, ClassLabels):
            counts = np.bincount(self.splits["train"].labels)
            share = round(float(counts.max() / counts.sum()), 4)
            facts["train"]["largest_class"] = {
                "name": self.labels.class_names[int(counts.argmax())],
                "share": share,
            }
        return facts

    def divide(
        self, split: _Split, fraction: float, seed: int
    ) -> tuple[Sequence[int], Sequence[int]]:
        """Return the positions of two parts with the same fraction of every class."""
        if split.groups is None:
            return self.labels.divide(split.labels, fraction, seed)
        return grouped_split(self.labels.strata(split.labels), split.groups, fraction, seed)

    def unseen(self, split: _Split) -> list[str]:
        """Return the names of the classes that no sample of a split has."""
        return self.labels.unseen(split.labels)

    def labels_of(self, split: str) -> Tensor:
        """Return the labels of a split, as in a batch."""
        return torch.as_tensor(self.splits[split].labels)
