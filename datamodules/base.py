"""Base of all datamodules: splits, checks of the data, and facts for provenance.json."""

import hashlib
import json
import logging
import os
from abc import abstractmethod
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import Annotated, Any, ClassVar, Generic, Literal, Protocol, Self, TypedDict, TypeVar

import lightning
import numpy as np
import numpy.typing as npt
from annotated_types import Ge, Interval
from torch import Tensor
from torch.utils.data import DataLoader

from datamodules.batching.loaders import batch_loader
from datamodules.batching.order import EvaluationBatches, TrainingBatches
from datamodules.batching.stored_features import (
    FeatureInput,
    FeatureSplit,
    NotStorableError,
    StoredFeatures,
)
from datamodules.inferring.findings import Finding
from datamodules.reading.errors import BadRow, DataError, leave_out
from datamodules.reading.progress import tracked
from datamodules.reading.splits import shared_keys

log = logging.getLogger(__name__)

SPLITS = ("train", "val", "test")
# Types of arguments that several datamodules share.
Folder = str | os.PathLike[str]
BatchSize = Annotated[int, Ge(1)]
MaxPixels = Annotated[int, Interval(ge=1, le=178_956_970)]  # Pillow rejects larger images itself
ValFraction = Annotated[float, Interval(ge=0.001, le=0.999)]
TestFraction = Annotated[float, Interval(ge=0.001, le=0.999)]
Workers = Annotated[int, Ge(0)]
_OTHER_DATA_ADVICE = (
    "fix the file, or leave such rows out with --on-bad-rows skip (in Python: on_bad_rows='skip')"
)
_MAX_NAMED = 5  # class names listed in a warning
_TEST_SEED = 0  # of the test split, which is the same for every seed of a run


def fingerprint(rows: Iterable[Sequence[Any]]) -> str:
    """Return the SHA-256 over rows of JSON scalars; equal datasets have equal fingerprints."""
    digest = hashlib.sha256()
    for row in rows:
        digest.update(
            json.dumps(list(row), ensure_ascii=False).encode("utf-8", "surrogatepass") + b"\n"
        )
    return digest.hexdigest()


class Split(Protocol):
    """The usable samples of a split."""

    def __len__(self) -> int: ...

    def take(self, positions: Sequence[int]) -> Self:
        """Return a split with the samples at these positions."""

    def rows(self) -> Iterable[Sequence[Any]]:
        """Return JSON scalars for each sample; the dataset's fingerprint covers them."""

    def sample_keys(self) -> Iterable[str]:
        """Return one string for each sample; equal samples have equal strings."""

    def name_of(self, key: str) -> str:
        """Return the name by which the user knows the sample with this key."""


_Split = TypeVar("_Split", bound=Split)


class SizeState(TypedDict):
    """The state of a datamodule of images: height and width."""

    size: tuple[int, int]


class TransferDataModule(lightning.LightningDataModule, Generic[_Split]):
    """Base of all datamodules.

    `setup` may be called more than once. Only the first call reads the data.

    Attributes:
        inputs: The kind of input, which `engine.prediction` reads when it predicts new samples;
            empty if it cannot.
        state_type: The type of its `state_dict`; see `run_folders.value_types`.
        bad_rows: Rows that were left out.
        splits: Usable samples of each split; empty before `setup`.
        stored: Features that replace the samples of a split; see `read_from_cache`.
        sample_noun: Noun for the samples in messages, for example "texts".
        splits_to_read: Splits that are read; set before `setup` if not all are needed.
        test_data: File or folder that is read in place of the test split; set before `setup`.
        start_epoch: Epoch at which training starts. Lightning creates the first iterator before it
            calls `set_epoch`, so a resumed run has to set this attribute.
        samples: Split -> how many of its samples are used, drawn at random; set before `setup`.
        repeats_batches: Whether every epoch has the training batches of the first one, as
            `trainer.overfit_batches` needs.
        batch_size, eval_batch_size: Batch size in training, and in validation and test.
    """

    inputs: ClassVar[str] = ""
    state_type: ClassVar[Any] = dict[str, Any]
    sample_noun = "samples"
    splits_to_read: Sequence[str] = SPLITS
    test_data: Path | None = None
    start_epoch: int = 0
    repeats_batches: bool = False
    batch_size: int
    eval_batch_size: int

    def __init__(
        self,
        val_fraction: float,
        on_bad_rows: Literal["error", "skip"],
        seed: int,
        test_fraction: float | None = None,
    ) -> None:
        """Store the settings that all datasets share.

        Args:
            val_fraction: Fraction of train that becomes val if there is no val file, 0..1.
            on_bad_rows: Raise an error, or leave bad rows out and list them.
            seed: Seed of the sample order and of the val split.
            test_fraction: Fraction of train that becomes test, 0..1; None if test has a file.
        """
        super().__init__()
        self.val_fraction, self.on_bad_rows, self.seed = val_fraction, on_bad_rows, seed
        self.test_fraction = test_fraction
        self.bad_rows: list[BadRow] = []
        self.splits: dict[str, _Split] = {}
        self.samples: Mapping[str, int] = {}
        self.stored: dict[str, StoredFeatures] = {}

    @classmethod
    def infer(cls, settings: Mapping[str, Any]) -> list[Finding]:  # noqa: ARG003 - for subclasses
        """Find in the data what its settings leave open, such as columns and classes.

        Args:
            settings: Arguments of the constructor, of plain types; None or `auto` where open.

        Raises:
            DataError: If the data does not decide a setting; the message is a question.
        """
        return []

    @property
    def splits_of_files(self) -> list[str]:
        """The splits whose files are read; if test is drawn from train, train is one of them."""
        if self.test_fraction is None:
            return list(self.splits_to_read)
        return ["train", *(name for name in self.splits_to_read if name not in ("train", "test"))]

    @abstractmethod
    def read_splits(self) -> tuple[dict[str, _Split], list[BadRow]]:
        """Read the files of `splits_of_files`; return the splits and the bad rows.

        Raises:
            DataError: If the data is missing or cannot be read at all.
        """

    def read_test_data(self, path: Path) -> tuple[_Split, list[BadRow]]:
        """Read a labelled file or folder in place of the test split.

        Args:
            path: The file or folder, in the format of the dataset.

        Returns:
            The split and the bad rows.

        Raises:
            DataError: If the data cannot be read at all.
        """
        msg = f"{path}: {type(self).__name__} reads no other data than its own"
        raise DataError(msg)

    def path_of(self, split: str) -> Path | None:  # noqa: ARG002 - for subclasses
        """Return the file or folder of a split; None if it has none on this machine."""
        return None

    def training_splits(self) -> dict[str, _Split]:
        """Read train and val as they are before training, bad rows left out, and return them.

        The datamodule cannot be used for anything else then.

        Raises:
            DataError: If the data is missing or cannot be read at all.
        """
        self.splits_to_read = "train", "val"
        splits, _ = self.read_splits()
        self._draw(splits)
        return {name: splits[name] for name in self.splits_to_read}

    @abstractmethod
    def divide(
        self, split: _Split, fraction: float, seed: int
    ) -> tuple[Sequence[int], Sequence[int]]:
        """Return the positions of two parts of a split; the second becomes val or test.

        Args:
            split: The samples of the train file.
            fraction: Fraction of the second part, between 0 and 1.
            seed: Seed; equal seeds return equal parts on every machine.
        """

    def unseen(self, split: _Split) -> list[str]:  # noqa: ARG002 - for subclasses
        """Return the names of the classes that no sample of a split has."""
        return []

    def labels_of(self, split: str) -> Tensor | None:  # noqa: ARG002 - for subclasses
        """Return the labels of a split, as in a batch; None if a task need not check them."""
        return None

    def use_backbone_of(self, state: dict[str, Any]) -> None:
        """Take over what the backbone of a finished run needs; nothing by default.

        Args:
            state: The state of that run's datamodule.
        """

    def setup(self, stage: str | None = None) -> None:  # noqa: ARG002 - all splits are prepared at once
        """Read and check all splits; later calls do nothing.

        Raises:
            DataError: If the data is missing or cannot be used.
        """
        if self.splits:
            return
        if self.test_data is None:
            splits, bad = self.read_splits()
            self.bad_rows = leave_out(bad, self.on_bad_rows)
        else:
            split, bad = self.read_test_data(self.test_data)
            splits = {"test": split}
            self.bad_rows = leave_out(bad, self.on_bad_rows, _OTHER_DATA_ADVICE)
        drawn = self._draw(splits)
        for name in self.splits_to_read:
            if not len(splits[name]):
                msg = f"the {name} split has no usable row; {len(bad)} were left out"
                part = name if name in drawn else drawn[-1] if drawn and name == "train" else None
                if part is not None:
                    msg = (
                        f"data.{part}_fraction={getattr(self, f'{part}_fraction')}: the train file "
                        f"has too few rows of each class, or too few groups, to draw the {part} "
                        f"split from; name a file in data.files.{part}"
                    )
                raise DataError(msg)
        limits = self.samples if self.test_data is None else {}
        self.splits = {name: _part(splits[name], limits.get(name)) for name in self.splits_to_read}
        unseen = self.unseen(self.splits["train"]) if "train" in self.splits_to_read else []
        if unseen:
            more = len(unseen) - _MAX_NAMED
            log.warning(
                "the train split has no sample of %s%s, so nothing is learnt about it",
                ", ".join(unseen[:_MAX_NAMED]),
                f" and {more} more classes" if more > 0 else "",
            )
        for (a, b), shared in self.overlaps.items():
            example = self._shown((a, b), shared[0])
            count = (
                f"1 {self.sample_noun.removesuffix('s')} occurs"
                if len(shared) == 1
                else f"{len(shared)} {self.sample_noun} occur"
            )
            log.warning("%s in both %s and %s, for example: %.80s", count, a, b, example)

    def _draw(self, splits: dict[str, _Split]) -> list[str]:
        """Draw test and val from train where they have no files; return which ones."""
        parts = {}
        if self.test_fraction is not None and self.test_data is None:
            parts["test"] = self.test_fraction, _TEST_SEED
        if "val" in self.splits_to_read and "val" not in splits:
            parts["val"] = self.val_fraction, self.seed
        for name, (fraction, seed) in parts.items():
            first, second = self.divide(splits["train"], fraction, seed)
            splits[name], splits["train"] = (
                splits["train"].take(second),
                splits["train"].take(first),
            )
        return list(parts)

    def on_before_batch_transfer(self, batch: Any, dataloader_idx: int) -> Any:  # noqa: ANN401, ARG002 - Lightning's signature
        """Raise a `DataError` that a worker returned in place of a batch."""
        if isinstance(batch, DataError):
            raise batch
        return batch

    @cached_property
    def overlaps(self) -> dict[tuple[str, str], list[str]]:
        """Samples that occur in two splits, for each pair of splits that shares any."""
        return shared_keys({name: split.sample_keys for name, split in self.splits.items()})

    def _shown(self, pair: tuple[str, str], key: str) -> str:
        """Return the name of a sample that occurs in two splits; both names if they differ."""
        return " = ".join(dict.fromkeys(self.splits[name].name_of(key) for name in pair))

    def describe(self) -> dict[str, Any]:
        """Return the facts about the data for provenance.json.

        For each split: number of rows, fingerprint, and number of skipped rows. For each pair of
        splits: samples that occur in both.
        """
        facts: dict[str, Any] = {}
        for name, split in self.splits.items():
            skipped = sum(row.split == name for row in self.bad_rows)
            rows = tracked(split.rows(), f"fingerprint of {name}", len(split), self.sample_noun)
            facts[name] = {
                "rows": len(split),
                "sha256": fingerprint(rows),
                "skipped_rows": skipped,
            }
        facts["overlaps"] = [
            {
                "splits": list(pair),
                "count": len(shared),
                "what": self.sample_noun,
                "examples": [self._shown(pair, key) for key in shared[:3]],
            }
            for pair, shared in self.overlaps.items()
        ]
        return facts

    def feature_loader(
        self,
        split: str,
        labels: npt.ArrayLike,
        indices: npt.ArrayLike,
        order: TrainingBatches | EvaluationBatches,
        view_of: Callable[[int, Tensor], Tensor] | None = None,
    ) -> DataLoader[Any]:
        """Return a loader that reads the stored features of a split in place of its samples.

        Args:
            split: Name of the split.
            labels: Labels of its samples; see `LabelReader`.
            indices: Rows of its samples in the file.
            order: Order of the batches.
            view_of: See `FeatureSplit`.
        """
        features = FeatureSplit(self.stored[split], labels, indices, view_of)
        return batch_loader(features, order, self.seed, num_workers=0)

    @classmethod
    def state_fault(cls, state: dict[str, Any]) -> str:  # noqa: ARG003 - for subclasses
        """Return why a state of the type `state_type` cannot be restored, or an empty string."""
        return ""

    @abstractmethod
    def reference(self, split: str, indices: Sequence[int]) -> tuple[str, list[str]]:
        """Return values by which the user recognises samples.

        Returns:
            Name of the column (text, image), and one value for each index.
        """

    def thumbnails(self, split: str, indices: Sequence[int]) -> dict[int, bytes]:  # noqa: ARG002 - for subclasses
        """Return small PNG files by sample index; empty if the samples are not images."""
        return {}

    def feature_input(self, split: str, *, augmented: bool = True) -> FeatureInput:  # noqa: ARG002 - for subclasses
        """Return the samples of a split from which features are computed once and stored.

        Args:
            split: Name of the split.
            augmented: Whether training samples have the views that training changes them to.

        Raises:
            NotStorableError: If the features would change from epoch to epoch.
        """
        msg = f"{type(self).__name__} does not support stored features"
        raise NotStorableError(msg)

    def read_from_cache(self, stored: Mapping[str, StoredFeatures]) -> None:
        """Make the loaders of these splits return `FeatureBatch`es from now on.

        Each batch has the features of the samples that it would otherwise contain.
        """
        self.stored = dict(stored)

    def probe_batch(self) -> Any:  # noqa: ANN401 - each dataset has its batch type
        """Return a batch of one sample to try the network with before training.

        None if trying one sample would show nothing.
        """
        return None

    def incompatibilities(self, limits: Mapping[str, int | None]) -> list[str]:  # noqa: ARG002 - for subclasses
        """Return one line for each property of the data that exceeds a limit of the backbone."""
        return []


def _part(split: _Split, count: int | None) -> _Split:
    """Return a split with so many of its samples, drawn at random, in their order; None: all."""
    total = len(split)
    if count is None or count >= total:
        return split
    return split.take(sorted(np.random.default_rng(0).permutation(total)[:count].tolist()))
