"""Labelled images from folders, Parquet or the hub; a new dataset needs only a YAML file."""

import logging
import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal

from annotated_types import Ge

from datamodules.base import (
    BatchSize,
    Folder,
    MaxPixels,
    SizeState,
    TestFraction,
    ValFraction,
    Workers,
)
from datamodules.images.batching import ImageBatches
from datamodules.images.duplicates import report_two_labels
from datamodules.images.rows import EncodedImage, ImageReader
from datamodules.images.storage import Decoding, ImageSplit
from datamodules.images.storing import store
from datamodules.images.thumbnails import thumbnail
from datamodules.images.transforms import NO_AUGMENTATION, Augmentation
from datamodules.inferring.findings import Finding, with_defaults, with_findings
from datamodules.inferring.folders.images import infer_images
from datamodules.inferring.labelled import settings_of_own_code
from datamodules.labelled import LabelledDataModule
from datamodules.reading.errors import BadRow, DataError
from datamodules.reading.formats import Quoting, TableFormat
from datamodules.reading.rows import COLUMN_ADVICE, other_columns
from datamodules.reading.sources import (
    AUTO_FILES,
    Files,
    check_drawn,
    check_hub_columns,
    existing_file,
    hub_table,
    split_sources,
    wanted_files,
)
from datamodules.reading.tables import SUFFIXES as TABLES
from run_folders.signatures.checking import check_arguments

log = logging.getLogger(__name__)


class ImageDataModule(ImageBatches):
    """Train, val and test images of one size, uint8; the network resizes and normalises them.

    Images are decoded once and kept in memory, or decoded by workers each time they are read.
    """

    inputs: ClassVar[str] = "images"
    state_type: ClassVar[Any] = SizeState
    sample_noun = "images"

    def __init__(
        self,
        folder: Folder,
        files: Files = AUTO_FILES,
        classes: list[str] | None = None,
        num_classes: int | None = None,
        data_dir: Folder = "data",
        hub: str | None = None,
        image_column: str | None = None,
        label_column: str | list[str] | None = None,
        label_separator: str | None = None,
        label_map: dict[Any, str] | None = None,
        group_column: str | None = None,
        delimiter: str | None = None,
        quoting: Quoting | None = None,
        encoding: str | None = None,
        val_fraction: ValFraction = 0.1,
        test_fraction: TestFraction | None = None,
        train_rows: Annotated[int, Ge(1)] | None = None,
        in_memory: bool = True,  # noqa: FBT001, FBT002 - named in the config
        size: Annotated[int, Ge(2)] | None = 256,
        max_pixels: MaxPixels = 50_000_000,
        convert: bool = False,  # noqa: FBT001, FBT002 - named in the config
        check: bool = False,  # noqa: FBT001, FBT002 - named in the config
        augmentation: Augmentation = NO_AUGMENTATION,
        batch_size: BatchSize = 64,
        eval_batch_size: BatchSize = 256,
        on_bad_rows: Literal["error", "skip"] = "error",
        num_workers: Workers = 0,
        seed: int = 1,
    ) -> None:
        """Store the settings, and find in the folder those that are left open.

        Nothing is read before `setup` if none is left open.

        Args:
            folder: The dataset's folder in `data_dir`, or a path from the working directory.
            files: For each split a folder with one folder of images per class, a table, or a list
                of paths (.txt); `auto` finds it.
            classes: Names of class or label 0, 1, ..., as in the label column or as the folders are
                named; None finds them.
            num_classes: Number of classes; other parts of the config refer to it. None counts them.
            data_dir: Folder of the datasets.
            hub: Name of the dataset on the hub, used if `folder` has none of the files.
            image_column: Image column of a table: the content of image files (Parquet), or their
                paths, relative to the folder of the table or to one beside it; their suffix may be
                missing. None finds it.
            label_column: Label column of a table: class names, or numbers 0..K-1. A list names the
                0/1 column of each label, for images with several labels. None finds it.
            label_separator: String between the labels of one image, for images with several labels.
            label_map: Value in the label column -> name of its class or label, for values that are
                no names.
            group_column: Column of the train table whose equal values stay in one split, where val
                or test is drawn from train.
            delimiter: Character between two fields of a CSV or TSV file; None finds it.
            quoting: csv if a field in quotes may contain delimiters and line ends, none if quotes
                are part of the values; None finds it.
            encoding: Python's name of the tables' encoding; None finds it.
            val_fraction: Fraction of train that becomes val if there is no val file, 0..1.
            test_fraction: Fraction of train that becomes test if `files` has no test file, 0..1. It
                is the same for every seed.
            train_rows: Number of rows to read from the start of the train file, which has to be a
                table; None reads all.
            in_memory: Whether to decode all images once and keep them.
            size: Side in pixels. The central square of each image is resized to it. None keeps the
                images, which then have to be of one size.
            max_pixels: Largest width times height that is decoded.
            convert: Whether to convert images that RGB cannot show as they are, as browsers do:
                transparent ones onto white, the first frame of an animation, 16 bits scaled to 8,
                CMYK to RGB. Otherwise they are bad rows.
            check: Whether to check images that are not kept in memory before training. Otherwise a
                bad image stops the run when it is read, and no image is compared with another.
                `on_bad_rows="skip"` always checks.
            augmentation: Random changes of training images, made after resizing to `size`.
            batch_size: Images in a training batch.
            eval_batch_size: Images in a validation or test batch.
            on_bad_rows: Raise an error, or leave bad rows out and list them.
            num_workers: Worker processes of a loader; images in memory need none.
            seed: Seed of the order, the augmentation and the val split.

        Raises:
            DataError: If the arguments contradict each other, or the data does not decide what they
                leave open.
        """
        given = check_arguments(ImageDataModule, locals())
        folder, data_dir = os.fspath(folder), os.fspath(data_dir)
        given |= {"folder": folder, "data_dir": data_dir}
        settled = with_findings(given, self.infer(given))
        super().__init__(
            settled["classes"],
            settled["num_classes"],
            settled["label_column"],
            label_separator,
            val_fraction,
            on_bad_rows,
            seed,
            label_map,
            TableFormat(encoding, delimiter, quoting),
            settled["test_fraction"],
            group_column,
        )
        if not in_memory and size is None:
            msg = "data.in_memory=false needs data.size, to which all images are resized"
            raise DataError(msg)
        self.folder, self.files = settled["folder"], settled["files"]
        self.data_dir, self.hub = data_dir, hub
        check_drawn(self.files, self.test_fraction, group_column)
        root = Path(data_dir) / self.folder
        self.reader = ImageReader(
            settled["image_column"], self.labels, self.class_names, group_column, root
        )
        self.train_rows, self.in_memory = train_rows, in_memory
        self.augmentation: Augmentation = {**NO_AUGMENTATION, **augmentation}
        self.decoding = Decoding(max_pixels, None if size is None else (size, size), convert)
        self.check = check
        self.batch_size, self.eval_batch_size, self.num_workers = (
            batch_size,
            eval_batch_size,
            num_workers,
        )
        self.run_size: tuple[int, int] | None = None

    @classmethod
    def infer(cls, settings: Mapping[str, Any]) -> list[Finding]:
        """Find files, columns and classes that are left open; see the base class."""
        given = with_defaults(cls, settings)
        if cls.sources is not ImageDataModule.sources:
            return settings_of_own_code(given, "image_column")
        return infer_images(
            given,
            has_classes=cls.label_reader is LabelledDataModule.label_reader,
            own_hub=cls.rows_from_hub is not ImageDataModule.rows_from_hub,
        )

    def read_splits(self) -> tuple[dict[str, ImageSplit], list[BadRow]]:
        """Read the images of every split and decode or check them."""
        limited = self.train_rows is not None and "train" in self.splits_of_files
        if limited and Path(self.files["train"]).suffix not in TABLES:
            msg = (
                f"data.train_rows={self.train_rows} needs a table ({', '.join(TABLES)}): "
                "the first images of a folder are all of one class"
            )
            raise DataError(msg)
        splits, bad = {}, []
        for split, images in self.sources().items():
            wanted = self._first(images) if split == "train" else images
            splits[split], faults = self._stored(wanted, split, self.decoding)
            bad += faults
        self._check_padding(splits)
        return splits, bad

    def path_of(self, split: str) -> Path | None:
        """Return the folder, table or list of a split; see the base class."""
        return existing_file(self.data_dir, self.folder, self.files, split)

    def read_test_data(self, path: Path) -> tuple[ImageSplit, list[BadRow]]:
        """Read a labelled table or folder; see the base class.

        With the state of a run, images have the size of the run's images.
        """
        images = self._images(path, "test", other_columns(self._reader_of("test").columns))
        decoding = replace(self.decoding, size=self.run_size or self.decoding.size)
        return self._stored(images, "test", decoding)

    def _images(
        self, path: Path, split: str, advice: str = COLUMN_ADVICE
    ) -> Iterator[EncodedImage | BadRow]:
        reader = self._reader_of(split)
        found = self.format_of(path, split, reader.columns)
        return reader.read(path, split, advice, found)

    def _reader_of(self, split: str) -> ImageReader:
        """Return the reader of a split; only train is divided, so only it needs groups."""
        return self.reader if split == "train" else replace(self.reader, group_column=None)

    def _stored(
        self, images: Iterable[EncodedImage | BadRow], split: str, decoding: Decoding
    ) -> tuple[ImageSplit, list[BadRow]]:
        return store(images, split, decoding, in_memory=self.in_memory, check=self._checks())

    def _checks(self) -> bool:
        return self.check or self.on_bad_rows == "skip"

    def setup(self, stage: str | None = None) -> None:
        """Read and check all splits; later calls do nothing.

        Raises:
            DataError: If the data is missing or cannot be used.
        """
        before = bool(self.splits)
        super().setup(stage)
        if before:
            return
        if not self.in_memory and not self._checks():
            log.info(
                "data.check=false: images are checked when they are read; damaged ones, and images "
                "that occur twice, are not found before"
            )
        if "train" in self.splits:
            train = self.splits["train"]
            report_two_labels(train.digests, train.encoded.labels, train.encoded.name)

    def sources(self) -> dict[str, Iterable[EncodedImage | BadRow]]:
        """Return the images of each split; subclasses override it for other sources.

        Raises:
            DataError: If the data is neither in the folder nor on the hub.
        """
        found = split_sources(
            self.data_dir,
            self.folder,
            wanted_files(self.files, self.splits_of_files),
            self.hub,
            self._images,
            self.rows_from_hub,
        )
        return {split: images for split, (_, images) in found.items()}

    def rows_from_hub(self, split: str) -> Iterable[EncodedImage | BadRow]:
        """Return the encoded images of a split on the hub; a subclass can read another layout.

        Raises:
            DataError: If the hub's dataset lacks a column.
        """
        table = hub_table(str(self.hub), split)
        reader = self._reader_of(split)
        needed = [("image_column", reader.image_column)]
        needed += [("label_column", column) for column in self.labels.columns]
        if reader.group_column is not None:
            needed.append(("group_column", reader.group_column))
        check_hub_columns(str(self.hub), table.columns, needed)
        return reader.from_rows(table.rows, f"{self.hub}, {split}", split)

    def _first(self, images: Iterable[EncodedImage | BadRow]) -> Iterable[EncodedImage | BadRow]:
        for count, image in enumerate(images):
            if count == self.train_rows:
                return
            yield image

    def _check_padding(self, splits: dict[str, ImageSplit]) -> None:
        padding = self.augmentation["crop_padding"]
        if not padding or not len(splits.get("train", ())):
            return
        side = min(splits["train"].pixels(0).shape[-2:])
        if padding >= side:
            msg = (
                f"data.augmentation.crop_padding: received {padding}; "
                f"choose less than {side}, the images' shorter side in pixels"
            )
            raise DataError(msg)

    def reference(self, split: str, indices: Sequence[int]) -> tuple[str, list[str]]:
        """Return the names of the files, with the row if a file contains many images."""
        images = self.splits[split]
        return "image", [images.encoded.name(p) for p in images.positions_of(indices)]

    def thumbnails(self, split: str, indices: Sequence[int]) -> dict[int, bytes]:
        """Return PNG files with sides of at most 96 pixels."""
        images = self.splits[split]
        places = images.positions_of(indices)
        return {
            i: thumbnail(images.pixels(place)) for i, place in zip(indices, places, strict=True)
        }

    def state_dict(self) -> dict[str, Any]:
        """Return height and width of the images; prediction resizes new images to them."""
        first = next(iter(self.splits.values()))
        return {"size": list(self.decoding.size or first.pixels(0).shape[-2:])}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Set the size of the run's images, for `read_test_data`."""
        height, width = state_dict["size"]
        self.run_size = int(height), int(width)
