"""Images with masks from folders, Parquet or the hub; a new dataset needs only a YAML file."""

import io
import logging
import os
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal

import torch
from annotated_types import Ge
from PIL import Image
from torch import Tensor
from torch.utils.data import DataLoader

from datamodules.base import (
    BatchSize,
    Folder,
    MaxPixels,
    SizeState,
    TestFraction,
    TransferDataModule,
    ValFraction,
    Workers,
)
from datamodules.batches import IGNORE_INDEX, SegmentationBatch
from datamodules.batching.loaders import batch_loader
from datamodules.batching.order import EpochBatches, EvaluationBatches
from datamodules.inferring.findings import Finding, with_defaults, with_findings
from datamodules.inferring.folders.masks import infer_masks
from datamodules.masks.checking import check_pairs
from datamodules.masks.class_list import ClassList, Pixels
from datamodules.masks.decoding import PairDecoding
from datamodules.masks.rows import EncodedPair, SegmentationReader
from datamodules.masks.storage import EvaluationPairs, SegmentationSplit, TrainingPairs
from datamodules.masks.transforms import (
    NO_AUGMENTATION,
    SegmentationAugmentation,
    SegmentationAugmenter,
)
from datamodules.reading.errors import BadRow, DataError
from datamodules.reading.sources import (
    AUTO_FILES,
    Files,
    HubFiles,
    check_drawn,
    check_hub_columns,
    hub_table,
    split_sources,
    wanted_files,
)
from datamodules.reading.splits import random_split
from run_folders.signatures.checking import check_arguments

log = logging.getLogger(__name__)


class SegmentationState(SizeState):
    """The state of the datamodule: the size of its images, and the content of the class list."""

    class_list: dict[str, Any]


class SegmentationDataModule(TransferDataModule[SegmentationSplit]):
    """Train, val and test images of one size, uint8, with their masks, uint8.

    Workers decode the images and masks each time they are read. The network normalises the images.
    """

    state_type: ClassVar[Any] = SegmentationState
    sample_noun = "images"

    def __init__(
        self,
        folder: Folder,
        files: Files = AUTO_FILES,
        class_list: str | dict[str, Any] | None = None,
        num_classes: int | None = None,
        data_dir: Folder = "data",
        hub: str | None = None,
        hub_files: HubFiles | None = None,
        images: str | None = None,
        annotations: str | None = None,
        image_suffix: str | None = None,
        annotation_suffix: str | None = None,
        image_column: str = "image",
        annotation_column: str = "annotation",
        val_fraction: ValFraction = 0.1,
        test_fraction: TestFraction | None = None,
        size: Annotated[int, Ge(2)] = 512,
        native_evaluation: bool = False,  # noqa: FBT001, FBT002 - named in the config
        max_pixels: MaxPixels = 50_000_000,
        convert: bool = False,  # noqa: FBT001, FBT002 - named in the config
        mask_orientation: Literal["shown", "stored"] | None = None,
        label_map: dict[int, int] | None = None,
        augmentation: SegmentationAugmentation | None = NO_AUGMENTATION,
        batch_size: BatchSize = 8,
        eval_batch_size: BatchSize = 8,
        on_bad_rows: Literal["error", "skip"] = "error",
        num_workers: Workers = 0,
        seed: int = 1,
    ) -> None:
        """Store the settings, and find in the folder those that are left open.

        Nothing but the class list is read before `setup` if none is left open.

        Args:
            folder: The dataset's folder in `data_dir`, or a path from the working directory.
            files: Name of each split, which replaces `{split}` in `images` and `annotations`, or a
                Parquet file; `auto` finds it. If `val` is null, a part of train becomes val.
            class_list: Name of one of Thaw's class lists, path of a YAML file, or the content of
                such a file; see `ClassList`. None finds a list in the folder, or reads the values
                of the train masks.
            num_classes: Number of classes; other parts of the config refer to it. None counts them.
            data_dir: Folder of the datasets.
            hub: Name of the dataset on the hub, used if `folder` has none of the files.
            hub_files: Files on the hub, if the dataset card does not state them.
            images: Folder of a split's images in `folder`, with the placeholder `{split}`. None
                finds it.
            annotations: Folder of a split's masks, likewise.
            image_suffix: End of the image file names; other files are counted and not used. None
                accepts all names.
            annotation_suffix: End of a mask's file name; it replaces the suffix of the image. In a
                folder of both, files that end like this are the masks. None finds it.
            image_column: Image column of a Parquet file or of the dataset on the hub.
            annotation_column: Mask column, likewise.
            val_fraction: Fraction of train that becomes val if there is no val folder, 0..1.
            test_fraction: Fraction of train that becomes test if `files` has no test, 0..1. It is
                the same for every seed.
            size: Side in pixels of the square to which images and masks are resized.
            native_evaluation: Whether to evaluate val and test at the original size of each mask.
            max_pixels: Largest width times height that is decoded.
            convert: Whether to convert images that RGB cannot show as they are; see
                `ImageDataModule`.
            mask_orientation: How masks were drawn where an image has an EXIF orientation: `shown`,
                on the image as viewers turn it, or `stored`, on the pixels in the file. None
                decides by sizes and tags, and pairs that may be turned against each other are bad
                rows.
            label_map: Mask value -> class number, in place of the values in the class list. Values
                that it does not name are unlabelled, and are counted.
            augmentation: Random changes of training images and their masks.
            batch_size: Images in a training batch.
            eval_batch_size: Images in a validation or test batch.
            on_bad_rows: Raise an error, or leave bad rows out and list them.
            num_workers: Worker processes of a loader.
            seed: Seed of the order, the augmentation and the val split.

        Raises:
            DataError: If the class list is invalid or contradicts `num_classes`, the scale is
                invalid, or images and masks cannot be distinguished.
        """
        given = check_arguments(SegmentationDataModule, locals())
        folder, data_dir = os.fspath(folder), os.fspath(data_dir)
        given |= {"folder": folder, "data_dir": data_dir}
        settled = with_findings(given, self.infer(given))
        self.class_list = ClassList.read(settled["class_list"]).mapped(label_map)
        count = len(self.class_list.names)
        if count != settled["num_classes"]:
            named = f" {class_list}" if isinstance(class_list, str) else ""
            msg = f"data.num_classes={num_classes}, but the class list{named} has {count} classes"
            raise DataError(msg)
        super().__init__(val_fraction, on_bad_rows, seed, settled["test_fraction"])
        self.class_names = list(self.class_list.names)
        self.folder, self.files = settled["folder"], settled["files"]
        self.data_dir, self.hub, self.hub_files = data_dir, hub, hub_files
        check_drawn(self.files, self.test_fraction, None)
        self.reader = SegmentationReader(
            settled["images"],
            settled["annotations"],
            settled["image_suffix"],
            settled["annotation_suffix"],
            image_column,
            annotation_column,
        )
        if self.reader.are_mixed:
            msg = (
                f"data.images and data.annotations are both {self.reader.images}; "
                "set data.image_suffix or data.annotation_suffix to distinguish them"
            )
            raise DataError(msg)
        self.size, self.native_evaluation = size, native_evaluation
        self.decoding = PairDecoding(max_pixels, convert, mask_orientation)
        changes: SegmentationAugmentation = {**NO_AUGMENTATION, **(augmentation or {})}
        scale = changes["scale"]
        if scale is not None and (len(scale) != 2 or not 0 < scale[0] <= scale[1]):  # noqa: PLR2004
            msg = (
                f"data.augmentation.scale: received {scale}; "
                "the lowest and the highest factor are needed, above 0"
            )
            raise DataError(msg)
        self.augmenter = SegmentationAugmenter(changes, size, seed)
        self.batch_size, self.eval_batch_size, self.num_workers = (
            batch_size,
            eval_batch_size,
            num_workers,
        )

    @classmethod
    def infer(cls, settings: Mapping[str, Any]) -> list[Finding]:
        """Find files, places and classes that are left open; see the base class."""
        return infer_masks(with_defaults(cls, settings))

    def read_splits(self) -> tuple[dict[str, SegmentationSplit], list[BadRow]]:
        """Read and check the pairs of every split."""
        splits, bad = {}, []
        for split, pairs in self.sources().items():
            splits[split], faults = check_pairs(pairs, split, self.class_list, self.decoding)
            bad += faults
        return splits, bad

    def path_of(self, split: str) -> Path | None:
        """Return the file or folder of the images of a split; see the base class."""
        name = self.files.get(split)
        path = Path(self.data_dir, self.folder, self.reader.place(name)) if name else None
        return path.resolve() if path and path.exists() else None

    def read_test_data(self, path: Path) -> tuple[SegmentationSplit, list[BadRow]]:
        """Read a Parquet file, or a folder; see the base class.

        The folder is one split, or has the layout of the dataset. Then its test split is read, or
        train where the dataset has no test split.
        """
        root, name = path.parent, path.name
        if path.is_dir():
            root, name = path, self.files.get("test") or self.files["train"]
            if not self.reader.has_folders(root, name) and self.reader.has_folders(root, "."):
                name = "."
            log.info("%s: the images are those of %s", path, root / self.reader.place(name))
        pairs = self.reader.read(root, name, "test")
        return check_pairs(pairs, "test", self.class_list, self.decoding)

    def divide(
        self, split: SegmentationSplit, fraction: float, seed: int
    ) -> tuple[Sequence[int], Sequence[int]]:
        """Return the positions of two parts, drawn at random."""
        return random_split(len(split), fraction, seed)

    def unseen(self, split: SegmentationSplit) -> list[str]:
        """Return the names of the classes without a pixel."""
        return [name for k, name in enumerate(self.class_names) if k not in split.classes]

    def labels_of(self, split: str) -> Tensor:  # noqa: ARG002 - the shape is that of all
        """Return an unlabelled mask of one pixel, [1, 1, 1] uint8, in place of all masks."""
        return torch.full((1, 1, 1), IGNORE_INDEX, dtype=torch.uint8)

    def sources(self) -> dict[str, Iterable[EncodedPair | BadRow]]:
        """Return the pairs of each split; subclasses override it for other sources.

        Raises:
            DataError: If the data is neither in the folder nor on the hub.
        """
        names = wanted_files(self.files, self.splits_of_files)
        root, places = (
            Path(self.data_dir) / self.folder,
            {split: self.reader.place(name) for split, name in names.items()},
        )

        def read(_: Path, split: str) -> Iterable[EncodedPair | BadRow]:
            return self.reader.read(root, names[split], split)

        found = split_sources(
            self.data_dir, self.folder, places, self.hub, read, self.rows_from_hub
        )
        return {split: pairs for split, (_, pairs) in found.items()}

    def setup(self, stage: str | None = None) -> None:
        """Read and check all splits; later calls do nothing.

        Raises:
            DataError: If the data is missing or cannot be used.
        """
        super().setup(stage)
        for name, split in self.splits.items():
            if not split.pixels.any():
                msg = f"the {name} split has no labelled pixel, in {len(split)} masks"
                raise DataError(msg)

    def rows_from_hub(self, split: str) -> Iterable[EncodedPair | BadRow]:
        """Return the encoded images of a split on the hub; a subclass can read another layout.

        Raises:
            DataError: If the hub's dataset lacks a column.
        """
        table = hub_table(str(self.hub), split, self.hub_files)
        needed = [
            ("image_column", self.reader.image_column),
            ("annotation_column", self.reader.annotation_column),
        ]
        check_hub_columns(str(self.hub), table.columns, needed)
        return self.reader.from_rows(table.rows, f"{self.hub}, {split}", split)

    def train_dataloader(self) -> DataLoader[SegmentationBatch]:
        """Return the loader of augmented training pairs; its order depends on (seed, epoch)."""
        split = self.splits["train"]
        sampler = EpochBatches(len(split), self.batch_size, self.seed)
        sampler.start(self.start_epoch, repeats=self.repeats_batches)
        return batch_loader(
            TrainingPairs(split, self.augmenter), sampler, self.seed, self.num_workers
        )

    def val_dataloader(self) -> DataLoader[SegmentationBatch]:
        """Return the loader of the val split."""
        return self._evaluation("val")

    def test_dataloader(self) -> DataLoader[SegmentationBatch]:
        """Return the loader of the test split."""
        return self._evaluation("test")

    def _evaluation(self, name: str) -> DataLoader[SegmentationBatch]:
        split = self.splits[name]
        pairs = EvaluationPairs(split, self.size, native=self.native_evaluation)
        batches = EvaluationBatches(range(len(split)), self.eval_batch_size)
        return batch_loader(pairs, batches, self.seed, self.num_workers)

    def probe_batch(self) -> SegmentationBatch:
        """Return a batch of one image with its mask."""
        batch = EvaluationPairs(
            next(iter(self.splits.values())), self.size, native=False
        ).__getitems__([0])
        if isinstance(batch, DataError):
            raise batch
        return batch

    def pairs(self, split: str, indices: Sequence[int]) -> list[tuple[Pixels, Pixels]]:
        """Return images [H, W, 3] and masks of classes [H, W] at their original sizes."""
        positions = {index: position for position, index in enumerate(self.splits[split].indices)}
        return [self.splits[split].pair(positions[index]) for index in indices]

    def reference(self, split: str, indices: Sequence[int]) -> tuple[str, list[str]]:
        """Return the names of the files, with the row if a file contains many images."""
        names = {pair.index: pair.image.name for pair in self.splits[split].pairs}
        return "image", [names[index] for index in indices]

    def state_dict(self) -> dict[str, Any]:
        """Return size and class list, which prediction needs."""
        return {"size": [self.size, self.size], "class_list": self.class_list.as_plain()}


def png(pixels: Pixels) -> bytes:
    """Return the content of a PNG file with the pixels [H, W] or [H, W, 3]."""
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, "PNG", compress_level=1)
    return buffer.getvalue()
