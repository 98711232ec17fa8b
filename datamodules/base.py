"""What every datamodule has: stratified splits, and the facts that a run records."""

import hashlib
import json
import logging
from abc import abstractmethod
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import cached_property
from typing import Annotated, Any, Generic, Literal, Protocol, Self, TypeVar

import lightning
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
from datamodules.reading.errors import BadRow, DataError, leave_out
from datamodules.reading.labels import check_classes
from datamodules.reading.splits import shared_contents

log = logging.getLogger(__name__)

SPLITS = ("train", "val", "test")
# Arguments that several datamodules have.
BatchSize = Annotated[int, Ge(1)]
MaxPixels = Annotated[int, Interval(ge=1, le=178_956_970)]  # above, Pillow refuses by itself
ValFraction = Annotated[float, Interval(ge=0.001, le=0.999)]
Workers = Annotated[int, Ge(0)]
_NAMED = 5  # classes in a warning


def fingerprint(rows: Iterable[Sequence[Any]]) -> str:
    """SHA-256 over rows of JSON scalars: two datasets with one fingerprint are the same."""
    digest = hashlib.sha256()
    for row in rows:
        digest.update(
            json.dumps(list(row), ensure_ascii=False).encode("utf-8", "surrogatepass") + b"\n"
        )
    return digest.hexdigest()


class Split(Protocol):
    """The usable samples of a split."""

    @property
    def classes(self) -> set[int]:
        """The classes that occur."""

    def __len__(self) -> int: ...

    def divided(self, fraction: float, seed: int) -> tuple[list[int], list[int]]:
        """Positions of two parts, the second with this share of the samples."""

    def take(self, positions: Sequence[int]) -> Self:
        """The samples at these positions."""

    def rows(self) -> Iterable[Sequence[Any]]:
        """What tells two datasets apart: JSON scalars of each sample."""

    def contents(self) -> Sequence[str]:
        """What tells two samples apart."""

    def name_of(self, content: str) -> str:
        """What a person knows the sample with this content by."""


_Split = TypeVar("_Split", bound=Split)


class TransferDataModule(lightning.LightningDataModule, Generic[_Split]):
    """Base of all datamodules. `setup` may be called any number of times and prepares all splits once.

    Attributes:
        class_names: Name of class 0, 1, ...
        bad_rows: The rows that were left out.
        splits: The usable samples; empty before `setup`.
        stored: Features that are read instead of the samples of a split; see `read_from_cache`.
        only: The splits that are read; set before `setup` where not all are needed.
        start_epoch: The epoch that training starts with. Lightning makes the first iterator before
            it tells the sampler the epoch, so a resumed run has to say it here.
        batch_size, eval_batch_size: Samples of a batch in training, and in validation and test.
    """

    samples_are = "samples"
    splits_to_read: Sequence[str] = SPLITS
    start_epoch: int = 0
    batch_size: int
    eval_batch_size: int

    def __init__(
        self,
        classes: Sequence[str],
        num_classes: int,
        val_fraction: float,
        on_bad_rows: Literal["error", "skip"],
        seed: int,
    ) -> None:
        """State what all datasets have.

        Args:
            classes: Names of class 0, 1, ...
            num_classes: How many, for others to refer to.
            val_fraction: Share of train that becomes val where there is no val file, 0..1.
            on_bad_rows: Stop, or leave them out and list them.
            seed: Of the order and of the val split.

        Raises:
            DataError: If the names contradict their number or each other.
        """
        super().__init__()
        check_classes(classes, num_classes)
        self.class_names = list(classes)
        self.val_fraction, self.on_bad_rows, self.seed = val_fraction, on_bad_rows, seed
        self.bad_rows: list[BadRow] = []
        self.splits: dict[str, _Split] = {}
        self.stored: dict[str, StoredFeatures] = {}

    @property
    def num_classes(self) -> int:
        """Number of classes in the data."""
        return len(self.class_names)

    @abstractmethod
    def read_splits(self) -> tuple[dict[str, _Split], list[BadRow]]:
        """Read every split that has a file, and what cannot be used of it.

        Raises:
            DataError: If the data is missing or is no such data at all.
        """

    def setup(self, stage: str | None = None) -> None:  # noqa: ARG002 - all splits are prepared at once
        """Read and check all splits; later calls do nothing.

        Raises:
            DataError: If the data is missing or cannot be used.
        """
        if self.splits:
            return
        splits, bad = self.read_splits()
        self.bad_rows = leave_out(bad, self.on_bad_rows)
        if "val" in self.splits_to_read and "val" not in splits:
            first, second = splits["train"].divided(self.val_fraction, self.seed)
            splits["val"], splits["train"] = (
                splits["train"].take(second),
                splits["train"].take(first),
            )
        for name in self.splits_to_read:
            if not len(splits[name]):
                msg = f"the {name} split has no usable row; {len(bad)} were left out"
                raise DataError(msg)
        missing = (
            set(range(self.num_classes)) - splits["train"].classes
            if "train" in self.splits_to_read
            else set()
        )
        if missing:
            names = ", ".join(self.class_names[k] for k in sorted(missing)[:_NAMED])
            more = f" and {len(missing) - _NAMED} more classes" if len(missing) > _NAMED else ""
            log.warning(
                "the train split has no sample of %s%s, so nothing is learnt about it", names, more
            )
        self.splits = {name: splits[name] for name in self.splits_to_read}
        for (a, b), shared in self.overlaps.items():
            example = self._shown((a, b), shared[0])
            log.warning(
                "%d %s stand in %s and in %s, for example: %.80s",
                len(shared),
                self.samples_are,
                a,
                b,
                example,
            )

    def on_before_batch_transfer(self, batch: Any, dataloader_idx: int) -> Any:  # noqa: ANN401, ARG002 - Lightning's signature
        """Raise what a worker found to be wrong: it hands faults over as batches."""
        if isinstance(batch, DataError):
            raise batch
        return batch

    @cached_property
    def overlaps(self) -> dict[tuple[str, str], list[str]]:
        """Samples that stand in two splits, for each pair of splits that share any."""
        return shared_contents({name: split.contents() for name, split in self.splits.items()})

    def _shown(self, pair: tuple[str, str], content: str) -> str:
        """A sample that stands in two splits, as a person knows it."""
        return " = ".join(dict.fromkeys(self.splits[name].name_of(content) for name in pair))

    def describe(self) -> dict[str, Any]:
        """Facts for provenance.json: rows, fingerprint and rows left out of each split; samples in two splits."""
        facts: dict[str, Any] = {}
        for name, split in self.splits.items():
            skipped = sum(row.split == name for row in self.bad_rows)
            facts[name] = {
                "rows": len(split),
                "sha256": fingerprint(split.rows()),
                "skipped_rows": skipped,
            }
        facts["overlaps"] = [
            {
                "splits": list(pair),
                "count": len(shared),
                "what": self.samples_are,
                "examples": [self._shown(pair, content) for content in shared[:3]],
            }
            for pair, shared in self.overlaps.items()
        ]
        return facts

    def feature_loader(
        self,
        split: str,
        labels: Sequence[int],
        indices: Sequence[int],
        order: TrainingBatches | EvaluationBatches,
        state_of: Callable[[int, Tensor], Tensor] | None = None,
    ) -> DataLoader[Any]:
        """A loader of stored features in the order of their samples.

        Args:
            split: Its name.
            labels: Of its samples.
            indices: Rows of its samples.
            order: Of the batches.
            state_of: See `FeatureSplit`.

        Returns:
            The loader.
        """
        features = FeatureSplit(self.stored[split], labels, indices, state_of)
        return batch_loader(features, order, self.seed, num_workers=0)

    @abstractmethod
    def reference(self, split: str, indices: Sequence[int]) -> tuple[str, list[str]]:
        """What a person recognises a sample by: a column's name (text, image) and a value for each index."""

    def thumbnails(self, split: str, indices: Sequence[int]) -> dict[int, bytes]:  # noqa: ARG002 - a base without a say
        """Small PNG pictures of samples, index -> file content; none where samples are not pictures."""
        return {}

    def feature_input(self, split: str) -> FeatureInput:  # noqa: ARG002 - a base without a say
        """What of a split a network reads once, so that its features can be stored.

        Raises:
            NotStorableError: If they would not be the same in every epoch.
        """
        msg = f"{type(self).__name__} does not say what a network reads of a split"
        raise NotStorableError(msg)

    def read_from_cache(self, stored: Mapping[str, StoredFeatures]) -> None:
        """From now on give `FeatureBatch`es of these splits, in the batches in which their samples would come."""
        self.stored = dict(stored)

    def probe_batch(self) -> Any:  # noqa: ANN401 - each dataset has its batch type
        """A batch of one sample to try the network with before anything is trained; None where that shows nothing."""
        return None

    def incompatibilities(self, backbone: dict[str, Any]) -> list[str]:  # noqa: ARG002 - a base without a say
        """What in the data does not fit the backbone with this configuration, a line each."""
        return []
