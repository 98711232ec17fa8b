"""Labelled texts from tables or the hub; a new dataset needs only a YAML file."""

import logging
import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from functools import cached_property, partial
from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal

import torch
from annotated_types import Ge
from torch.utils.data import DataLoader

from datamodules.base import BatchSize, Folder, TestFraction, ValFraction, Workers
from datamodules.batches import TextBatch
from datamodules.batching.loaders import batch_loader
from datamodules.batching.order import EvaluationBatches, Positions, TrainingBatches
from datamodules.batching.stored_features import FeatureInput, digest_of_tensors
from datamodules.inferring.findings import Finding, with_defaults, with_findings
from datamodules.inferring.labelled import infer_tables, settings_of_own_code
from datamodules.labelled import LabelledDataModule
from datamodules.reading.errors import BadRow, DataError
from datamodules.reading.formats import Quoting, TableFormat
from datamodules.reading.rows import COLUMN_ADVICE, Row, check_columns, other_columns
from datamodules.reading.sources import (
    AUTO_FILES,
    Files,
    check_drawn,
    existing_file,
    hub_table,
    split_sources,
    wanted_files,
)
from datamodules.reading.tables import read_rows
from datamodules.reading.text_rows import RowReader, TextSplit
from datamodules.texts.batching import (
    LengthBuckets,
    PadCollator,
    TokenizedTexts,
    longest_first,
    padded_tokens,
    padding_share,
)
from datamodules.texts.cleaning import DEFAULT_CLEANING, Cleaning, clean
from datamodules.texts.tokenizing import (
    TextTokenizer,
    TokenizerSpec,
    TokenizerState,
    load_tokenizer,
    vocabulary_tokenizer,
)
from run_folders.signatures.checking import check_arguments

log = logging.getLogger(__name__)


class TextDataModule(LabelledDataModule[TextSplit]):
    """Train, val and test texts: cleaned, tokenised and batched by length."""

    inputs: ClassVar[str] = "texts"
    state_type: ClassVar[Any] = TokenizerState
    sample_noun = "texts"

    def __init__(
        self,
        folder: Folder,
        tokenizer: str | TokenizerSpec,
        files: Files = AUTO_FILES,
        cleaning: Cleaning = DEFAULT_CLEANING,
        classes: list[str] | None = None,
        num_classes: int | None = None,
        data_dir: Folder = "data",
        hub: str | None = None,
        text_column: str | None = None,
        label_column: str | list[str] | None = None,
        label_separator: str | None = None,
        label_map: dict[Any, str] | None = None,
        id_column: str | None = None,
        group_column: str | None = None,
        delimiter: str | None = None,
        quoting: Quoting | None = None,
        encoding: str | None = None,
        val_fraction: ValFraction = 0.1,
        test_fraction: TestFraction | None = None,
        max_length: Annotated[int, Ge(3)] = 128,  # one token between the two special ones
        batch_size: BatchSize = 32,
        eval_batch_size: BatchSize = 64,
        on_bad_rows: Literal["error", "skip"] = "error",
        num_workers: Workers = 0,
        seed: int = 1,
    ) -> None:
        """Store the settings.

        What is left open is inferred from the data; see `infer`. If nothing is open, nothing is
        read before `setup`.

        Args:
            folder: The dataset's folder in `data_dir` or the working directory, or its only table.
            tokenizer: Hub name, local folder, or the size of a vocabulary to build from the train
                split.
            files: File of each split; `auto` finds it in the folder.
            cleaning: Cleaning steps that are applied.
            classes: Names of class or label 0, 1, ..., as in the label column; None infers them.
            num_classes: Number of classes; other parts of the config refer to it. None infers it.
            data_dir: Folder of the datasets.
            hub: Name of the dataset on the hub, used if `folder` has none of the files.
            text_column: Name of the text column; None infers it.
            label_column: Name of the label column; None infers it. It has class names, or numbers
                0..K-1 if the file format has typed numbers. A list names the 0/1 column of each
                label, for texts with several labels.
            label_separator: String between the labels of one text, for texts with several labels.
            label_map: Value in the label column -> name of its class or label, for values that are
                no names, for example {0: ham, 1: spam}.
            id_column: Column whose values must be unique, if any.
            group_column: Column of train whose equal values stay in one split, where val or test is
                drawn from train.
            delimiter: Character between two fields of a CSV or TSV file; None finds it.
            quoting: csv if a field in quotes may contain delimiters and line ends, none if quotes
                are part of the texts; None finds it.
            encoding: Python's name of the files' encoding; None finds it.
            val_fraction: Fraction of train that becomes val if there is no val file, 0..1.
            test_fraction: Fraction of train that becomes test if `files` has no test file, 0..1. It
                is the same for every seed.
            max_length: Number of tokens to which longer texts are truncated.
            batch_size: Texts in a training batch.
            eval_batch_size: Texts in a validation or test batch.
            on_bad_rows: Raise an error, or leave bad rows out and list them.
            num_workers: Worker processes that collate; texts are in memory, so 0 is fastest.
            seed: Seed of the order and of the val split.

        Raises:
            DataError: If the arguments contradict each other, or the data does not decide what they
                leave open.
        """
        given = check_arguments(TextDataModule, locals())
        folder, data_dir = os.fspath(folder), os.fspath(data_dir)
        given |= {"folder": folder, "data_dir": data_dir}
        found = with_findings(given, self.infer(given))
        super().__init__(
            found["classes"],
            found["num_classes"],
            found["label_column"],
            label_separator,
            val_fraction,
            on_bad_rows,
            seed,
            label_map,
            TableFormat(encoding, delimiter, quoting),
            found["test_fraction"],
            group_column,
        )
        self.folder, self.files, self.data_dir = found["folder"], found["files"], data_dir
        self.hub = hub
        check_drawn(self.files, self.test_fraction, group_column)
        self.reader = RowReader(found["text_column"], self.labels, id_column, group_column)
        self.tokenizer_spec, self.cleaning, self.max_length = tokenizer, cleaning, max_length
        self.batch_size, self.eval_batch_size, self.num_workers = (
            batch_size,
            eval_batch_size,
            num_workers,
        )
        self.restored: TextTokenizer | None = None

    @classmethod
    def infer(cls, settings: Mapping[str, Any]) -> list[Finding]:
        """Find the files, columns and classes that are open; see the base class.

        A subclass whose own code reads the data, or its labels, has to set them.
        """
        given = with_defaults(cls, settings)
        if cls.sources is not TextDataModule.sources:
            return settings_of_own_code(given, "text_column")
        return infer_tables(
            given,
            "text_column",
            has_classes=cls.label_reader is LabelledDataModule.label_reader,
            own_hub=cls.rows_from_hub is not TextDataModule.rows_from_hub,
        )

    def read_splits(self) -> tuple[dict[str, TextSplit], list[BadRow]]:
        """Read the rows of every split that has a file."""
        splits, bad = {}, []
        for split, (file, rows) in self.sources().items():
            splits[split], faults = self._reader_of(split).read(rows, file, split)
            bad += faults
        return splits, bad

    def _reader_of(self, split: str) -> RowReader:
        """Return the reader of a split; only train is divided, so only it needs groups."""
        return self.reader if split == "train" else replace(self.reader, group_column=None)

    def path_of(self, split: str) -> Path | None:
        """Return the table of a split; see the base class."""
        return existing_file(self.data_dir, self.folder, self.files, split)

    def read_test_data(self, path: Path) -> tuple[TextSplit, list[BadRow]]:
        """Read a labelled table; see the base class. It need not have the dataset's ids."""
        reader = replace(self.reader, id_column=None, group_column=None)
        rows = self._rows(path, "test", reader, other_columns(reader.columns()))
        return reader.read(rows, path.name, "test")

    def sources(self) -> dict[str, tuple[str, Iterable[Row | BadRow]]]:
        """Return file name and rows of each split; subclasses override it for other sources.

        Raises:
            DataError: If the data is neither in the folder nor on the hub.
        """
        return split_sources(
            self.data_dir,
            self.folder,
            wanted_files(self.files, self.splits_of_files),
            self.hub,
            self._rows,
            self.rows_from_hub,
        )

    def _rows(
        self, path: Path, split: str, reader: RowReader | None = None, advice: str = COLUMN_ADVICE
    ) -> Iterator[Row | BadRow]:
        reader = reader or self._reader_of(split)
        columns = reader.columns()
        found = self.format_of(path, split, columns)
        return read_rows(path, columns, reader.is_complete_row, split, advice, found, columns)

    def rows_from_hub(self, split: str) -> Iterable[Row]:
        """Return the rows of a split on the hub; subclasses override it for another layout.

        Raises:
            DataError: If the hub's dataset lacks a column.
        """
        table = hub_table(str(self.hub), split)
        needed = self._reader_of(split).columns()
        check_columns(Path(f"{self.hub} on the hub, {split}"), table.columns, needed)
        return table.rows

    @cached_property
    def tokenizer(self) -> TextTokenizer:
        """The tokenizer: restored from a checkpoint, else loaded or built on first use."""
        if self.restored is not None:
            return self.restored
        if isinstance(self.tokenizer_spec, str):
            return load_tokenizer(self.tokenizer_spec)
        texts = (clean(text, self.cleaning) for text in self.splits["train"].texts)
        return vocabulary_tokenizer(texts, self.tokenizer_spec["vocab_size"])

    @cached_property
    def tokenized(self) -> dict[str, TokenizedTexts]:
        """Token ids of every split."""
        result = {}
        for name, split in self.splits.items():
            texts = (clean(text, self.cleaning) for text in split.texts)
            ids = self.tokenizer.encode(texts, self.max_length, len(split))
            result[name] = TokenizedTexts(ids, split.labels, split.indices)
        return result

    def train_dataloader(self) -> DataLoader[TextBatch]:
        """Return the training loader; its order depends on (seed, epoch)."""
        sampler = LengthBuckets(self.tokenized["train"].lengths, self.batch_size, self.seed)
        sampler.start(self.start_epoch, repeats=self.repeats_batches)
        return self._loader("train", sampler)

    def val_dataloader(self) -> DataLoader[TextBatch]:
        """Return the loader of the val split."""
        return self._loader(
            "val", longest_first(self.tokenized["val"].lengths, self.eval_batch_size)
        )

    def test_dataloader(self) -> DataLoader[TextBatch]:
        """Return the loader of the test split."""
        return self._loader(
            "test", longest_first(self.tokenized["test"].lengths, self.eval_batch_size)
        )

    def _loader(self, split: str, sampler: TrainingBatches | EvaluationBatches) -> DataLoader[Any]:
        if split in self.stored:
            texts = self.tokenized[split]
            return self.feature_loader(split, texts.labels, texts.indices, sampler)
        return self._samples(split, sampler)

    def _samples(self, split: str, sampler: Iterable[list[int] | Positions]) -> DataLoader[Any]:
        return batch_loader(
            self.tokenized[split],
            sampler,
            self.seed,
            self.num_workers,
            PadCollator(self.tokenizer.pad_id),
        )

    def feature_input(self, split: str, *, augmented: bool = True) -> FeatureInput:  # noqa: ARG002 - the base's
        """Return all texts of a split, longest first."""
        texts = self.tokenized[split]
        batches = longest_first(texts.lengths, self.eval_batch_size).batches
        digest = digest_of_tensors(
            [texts.flat, torch.from_numpy(texts.lengths)], "texts", self.eval_batch_size
        )
        return FeatureInput(partial(self._samples, split, batches), batches, texts.lengths, digest)

    def describe(self) -> dict[str, Any]:
        """Return the facts of the base class, and those of the tokens.

        For each split: number of truncated texts, the length that truncates them, number of tokens,
        and how many of them are unknown; `padded_tokens` is the number of tokens of the evaluation
        batches, padding included. For train: share of padding in the batches of training.
        """
        facts = super().describe()
        for name, texts in self.tokenized.items():
            evaluated = longest_first(texts.lengths, self.eval_batch_size).batches
            facts[name] |= {
                "truncated": texts.truncated,
                "max_length": self.max_length,
                "tokens": len(texts.flat),
                "unknown_tokens": texts.unknown,
                "padded_tokens": padded_tokens(evaluated, texts.lengths),
            }
        if "train" not in self.splits:
            return facts
        lengths = self.tokenized["train"].lengths
        batches = LengthBuckets(lengths, self.batch_size, self.seed).batches()
        facts["train"]["padding_share"] = round(padding_share(batches, lengths), 4)
        return facts

    def reference(self, split: str, indices: Sequence[int]) -> tuple[str, list[str]]:
        """Return the raw texts."""
        return "text", self.splits[split].texts_of(indices)

    def incompatibilities(self, limits: Mapping[str, int | None]) -> list[str]:
        """Report token ids outside the backbone's vocabulary, and texts longer than it can read."""
        faults = []
        ids, table = self.tokenizer.vocab_size, limits.get("vocab_size")
        if table is not None and ids > table:
            faults.append(
                f"data.tokenizer: it has {ids} ids; the backbone has {table}: "
                "they belong to different models"
            )
        longest = max(int(tokens.lengths.max()) for tokens in self.tokenized.values())
        usable, trained = limits.get("max_tokens"), limits.get("trained_tokens")
        if usable is not None and longest > usable:
            faults.append(
                f"data.max_length: received {self.max_length}; the backbone reads at most {usable} "
                f"tokens, and a text has {longest}; set data.max_length={usable}"
            )
        elif usable is None and trained is not None and longest > trained:
            log.warning(
                "data.max_length=%d: a text has %d tokens, and the backbone was made for %d; "
                "longer texts may be predicted worse",
                self.max_length,
                longest,
                trained,
            )
        return faults

    def state_dict(self) -> dict[str, Any]:
        """Return the tokenizer; prediction then needs neither the hub nor the backbone's folder."""
        return self._tokenizer_state

    @cached_property
    def _tokenizer_state(self) -> dict[str, Any]:
        """The serialised tokenizer, cached because every checkpoint contains it."""
        return self.tokenizer.to_state()

    def use_backbone_of(self, state: dict[str, Any]) -> None:
        """Use the tokenizer of the run, in place of `tokenizer`."""
        self.load_state_dict(state)

    @classmethod
    def state_fault(cls, state: dict[str, Any]) -> str:
        """Return why the tokenizer cannot be restored; see the base class."""
        try:
            TextTokenizer.from_state(state)
        except DataError as error:
            return str(error)
        return ""

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Restore the tokenizer of a checkpoint; call it before `setup`."""
        self.restored = TextTokenizer.from_state(state_dict)
