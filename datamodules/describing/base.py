"""Base of the descriptions: one class for each kind of data."""

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, Protocol

from datamodules.describing.sections import Section, bad_rows_section
from datamodules.describing.split_facts import SplitFacts
from datamodules.describing.unclear import folder_section, table_sections
from datamodules.inferring.columns import OpenColumnError
from datamodules.inferring.findings import Finding, with_findings
from datamodules.inferring.splits import dataset_folder
from datamodules.reading.errors import DataError
from datamodules.reading.formats import TableFormat
from datamodules.texts.tokenizing import TextTokenizer


class KindFacts(Protocol):
    """The facts about a split of one kind of data."""

    split: SplitFacts


@dataclass(frozen=True)
class Request:
    """What to describe.

    Attributes:
        path: A folder or a table.
        given: Settings of `data` that the user gave.
        data_dir: Folder of the datasets.
        tokenizer: The tokenizer that counts tokens, if any.
        max_length: Number of tokens to which training truncates texts.
        limit: Largest number of images that are opened in each split.
    """

    path: Path
    given: Mapping[str, Any]
    data_dir: Path
    tokenizer: TextTokenizer | None
    max_length: int
    limit: int


class Description(ABC):
    """What a dataset contains, and the settings that read it.

    Attributes:
        template: The option of the config group `data` that reads it.
        what: What it is, in words.
        open_settings: Arguments of the datamodule as they are if the data decides them.
        request: What to describe.
        guessed: Settings that follow from the kind of data, but are not inferred in training.
        findings: What was inferred.
        question: Why the settings could not be inferred; empty if they were.
        answers: Key and value of each setting that answers it, if a few do.
        settings: The completed settings.
        facts: Facts about each split, once they are read.
    """

    template: ClassVar[str]
    what: ClassVar[str]
    open_settings: ClassVar[Mapping[str, Any]]
    facts: Sequence[KindFacts]

    def __init__(self, request: Request) -> None:
        """Infer the settings and read the data.

        Raises:
            DataError: If a file cannot be read at all.
        """
        self.request, self.question = request, ""
        self.answers: list[tuple[str, str]] = []
        self.guessed = {k: v for k, v in self.guess().items() if k not in request.given}
        place = {"folder": str(request.path.resolve()), "data_dir": str(request.data_dir)}
        open_settings = {**self.open_settings, **place, **self.guessed, **request.given}
        self.findings: list[Finding] = []
        try:
            self.findings = self.infer(open_settings)
        except DataError as error:
            self.question = str(error)
            if isinstance(error, OpenColumnError):
                self.answers = [(error.key, name) for name in error.names]
        self.settings = with_findings(open_settings, self.findings)
        if not self.question:
            self.read()

    @property
    def folder(self) -> Path:
        """The dataset's folder."""
        return dataset_folder(self.settings["data_dir"], self.settings["folder"])[0]

    @property
    def files(self) -> dict[str, str]:
        """File of each split that has one."""
        files = self.settings["files"]
        return {split: files[split] for split in ("train", "val", "test") if files[split]}

    @property
    def table_format(self) -> TableFormat:
        """The format of tables, as far as the user gave it."""
        given = self.settings.get
        return TableFormat(given("encoding"), given("delimiter"), given("quoting"))

    def guess(self) -> dict[str, Any]:
        """Return settings that follow from the kind of data; nothing by default."""
        return {}

    @abstractmethod
    def infer(self, settings: Mapping[str, Any]) -> list[Finding]:
        """Return what the data decides, as in training."""

    @abstractmethod
    def read(self) -> None:
        """Read the data, and keep the facts about it."""

    def sections(self) -> list[Section]:
        """Return the facts; while the settings are not known, columns of tables and folders."""
        if not self.question:
            return self.described()
        path = self.request.path
        return table_sections(path, self.table_format) or folder_section(path)

    @abstractmethod
    def described(self) -> list[Section]:
        """Return the facts that `read` has kept, as sections."""

    @property
    def splits(self) -> list[SplitFacts]:
        """The facts about each split that all kinds of data have, once they are read."""
        return [facts.split for facts in self.facts]

    @property
    def bad_count(self) -> int:
        """Number of samples that cannot be used."""
        return sum(split.bad_count for split in self.splits)

    @property
    def skips_bad_rows(self) -> bool:
        """Whether training leaves out the samples that cannot be used."""
        return bool(self.settings.get("on_bad_rows") == "skip")

    def bad_rows(self) -> Section | None:
        """Return the samples that cannot be used; None if all can."""
        return bad_rows_section(self.splits, skipped=self.skips_bad_rows)

    def drawn_notes(self) -> list[str]:
        """Return a sentence for each split that is drawn from train."""
        notes = []
        if "val" not in self.files:
            notes.append("val is drawn from train with the seed (data.val_fraction)")
        fraction = self.settings.get("test_fraction")
        if "test" not in self.files and fraction:
            part = f"{fraction:.0%}".replace("%", " %")
            notes.append(f"test is drawn from train: {part}, the same for every seed")
        return notes
