"""Description of texts in tables."""

from array import array
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import Any, ClassVar

from datamodules.describing.base import Description
from datamodules.describing.columns import ColumnCounter, ColumnFacts
from datamodules.describing.sections import (
    Cell,
    Lengths,
    Section,
    classes_section,
    columns_section,
    copies_section,
    share,
)
from datamodules.describing.several_labels import guess_labels
from datamodules.describing.split_facts import SplitFacts
from datamodules.describing.tokens import TokenCounter
from datamodules.inferring.findings import Finding
from datamodules.inferring.labelled import infer_tables
from datamodules.reading.errors import BadRow
from datamodules.reading.formats import FoundFormat, TableFormat, find_format
from datamodules.reading.label_settings import label_reader
from datamodules.reading.labels import LabelReader
from datamodules.reading.progress import tracked
from datamodules.reading.sources import AUTO_FILES
from datamodules.reading.tables import TEXT_SUFFIXES, read_rows
from datamodules.reading.text_rows import text_fault

_PIECES = 8  # unknown words that are named


@dataclass
class TextFacts:
    """Facts about the texts of a split.

    Attributes:
        split: Facts that all kinds of data have.
        columns: The columns of its table.
        characters: Length of each text.
        tokens: Its tokens, if there is a tokenizer.
    """

    split: SplitFacts
    columns: list[ColumnFacts]
    characters: "array[int]"
    tokens: TokenCounter | None


class TextDescription(Description):
    """Texts with one label each.

    Attributes:
        facts: Facts about each split.
    """

    facts: list[TextFacts]
    template = "text"
    what = "texts with one label each"
    open_settings: ClassVar[Mapping[str, Any]] = MappingProxyType(
        {
            "files": AUTO_FILES, "hub": None, "classes": None, "num_classes": None,
            "text_column": None, "label_column": None, "label_separator": None, "label_map": None,
            "id_column": None, "group_column": None, "test_fraction": None, "delimiter": None,
            "quoting": None, "encoding": None,
        }
    )  # fmt: skip

    def infer(self, settings: Mapping[str, Any]) -> list[Finding]:
        """Return what the tables decide, as in training."""
        return infer_tables(settings, "text_column", has_classes=True)

    def read(self) -> None:
        """Read each table once."""
        found = self.settings
        labels = label_reader(
            found["label_column"], found["label_separator"], found["classes"], found["label_map"]
        )
        self.facts = [
            self._read(self.folder / name, split, labels) for split, name in self.files.items()
        ]

    def _read(self, path: Path, split: str, labels: LabelReader) -> TextFacts:
        column = self.settings["text_column"]
        needed = [column, *labels.columns]
        found = self._format(path, needed)
        counters: dict[str, ColumnCounter] = {}
        numbers, characters = array("q"), array("q")
        tokens = TokenCounter(self.request.tokenizer) if self.request.tokenizer else None
        read_as = str(found) if isinstance(found, FoundFormat) else "Parquet"
        facts, rows = SplitFacts(split, path.name, read_as), 0
        source = read_rows(path, needed, labels.is_complete, split, table_format=found)
        for row in tracked(source, f"reading {path.name}"):
            if isinstance(row, BadRow):
                facts.add_bad(row)
                continue
            rows += 1
            for name, value in row.values.items():
                if name not in counters:
                    counters[name] = ColumnCounter(name)
                counters[name].add(value)
            text: Any = row.values.get(column)
            label, reason = labels.read(row.values)
            reason = text_fault(text, column) or reason
            if reason:
                facts.add_bad(BadRow(split, path.name, row.number, row.line, reason))
                continue
            facts.add_label(label)
            facts.compare(hash(text.strip()), label)
            numbers.append(row.number)
            characters.append(len(text))
            if tokens:
                tokens.add(text)
        if tokens:
            tokens.flush()
        facts.place = lambda position: f"{path.name}, row {numbers[position]}"
        columns = [counter.facts(rows) for counter in counters.values()]
        return TextFacts(facts, columns, characters, tokens)

    def _format(self, path: Path, needed: list[str]) -> TableFormat | FoundFormat:
        """Return the format of a table, as far as it has one."""
        is_text = path.suffix.lower() in TEXT_SUFFIXES and path.stat().st_size > 0
        return find_format(path, needed, self.table_format) if is_text else self.table_format

    def described(self) -> list[Section]:
        """Return files, columns, classes, lengths, bad rows and copies."""
        splits = self.splits
        rows: list[list[Cell]] = [
            [split.name, split.source, split.read_as, split.samples, split.bad_count]
            for split in splits
        ]
        header = ("split", "file", "read as", "rows", "not usable")
        found = [Section("Files", header, rows, self.drawn_notes())]
        roles = {self.settings["text_column"]: "text"}
        roles |= dict.fromkeys(self._label_columns(), "label")
        roles |= {self.settings["id_column"]: "id", self.settings["group_column"]: "group"}
        found.append(columns_section("train", self.facts[0].columns, roles))
        found.append(classes_section(splits, self.settings["classes"]))
        found.append(self._lengths())
        found += [section for section in (self.bad_rows(),) if section]
        return [*found, copies_section(splits, "texts")]

    def _label_columns(self) -> list[str]:
        column = self.settings["label_column"]
        return [column] if isinstance(column, str) else column

    def _lengths(self) -> Section:
        """Return the lengths of the texts, and what a tokenizer does not know."""
        limit, rows, notes = self.request.max_length, list[list[Cell]](), list[str]()
        for facts in self.facts:
            name = facts.split.name
            if not facts.characters:
                continue
            rows.append([name, "characters", *Lengths.of(facts.characters), "-"])
            if facts.tokens:
                lengths = facts.tokens.lengths
                longer = sum(length > limit for length in lengths)
                cut = f"{longer:,} ({share(longer, len(lengths))})"
                rows.append([name, "tokens", *Lengths.of(lengths), cut])
                notes += _unknown(name, facts.tokens)
        if not self.request.tokenizer:
            notes.append("tokens: give a tokenizer, such as --tokenizer bert-base-uncased")
        header = ("split", "unit", "shortest", "median", "95 %", "longest", f"longer than {limit}")
        return Section("Lengths", header, rows, notes)


def _unknown(split: str, tokens: TokenCounter) -> list[str]:
    """Return the sentence about the tokens that a vocabulary does not know."""
    if not tokens.unknown:
        return []
    pieces = ", ".join(f"{piece!r} {n:,}" for piece, n in tokens.pieces.most_common(_PIECES))
    total = sum(tokens.lengths)
    part = f"{tokens.unknown:,} of {total:,} ({share(tokens.unknown, total)})"
    return [f"{split}: tokens that the vocabulary does not know: {part}; most often {pieces}"]


class MultilabelTextDescription(TextDescription):
    """Texts with several labels each."""

    template = "multilabel_text"
    what = "texts with several labels each"

    def guess(self) -> dict[str, Any]:
        """Return the columns of the labels, or what separates them."""
        return guess_labels(self.request.path)

    def described(self) -> list[Section]:
        """Return the sections of texts, and the number of texts without a label."""
        found = super().described()
        without = [
            f"{facts.split.name}: {facts.split.without_label:,} texts have none of the labels"
            for facts in self.facts
            if facts.split.without_label
        ]
        return [*found, Section("Without a label", notes=without)] if without else found
