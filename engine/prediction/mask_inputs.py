"""The inputs of a prediction of masks: images with the annotated masks beside them."""

import logging
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from datamodules.images.rows import EncodedImage
from datamodules.masks.rows import Masks, SegmentationReader
from datamodules.reading.errors import BadRow, DataError
from datamodules.reading.formats import TableFormat
from engine.prediction.images import images_of
from engine.trained_run import TrainedRun

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class MaskInput:
    """An image to predict.

    Attributes:
        image: The encoded image.
        name: The prefix of its output files' names.
        annotation: The file of its annotated mask; None without one.
        annotation_required: True if the user named the folder of masks, False if it was found
            beside the images.
    """

    image: EncodedImage
    name: Path
    annotation: Path | None
    annotation_required: bool


def mask_inputs(
    run: TrainedRun,
    inputs: Sequence[Path],
    column: str,
    annotations: Path | None,
    table_format: TableFormat = TableFormat(),
) -> Iterator[MaskInput | BadRow]:
    """Yield the images of the inputs, and what cannot be one.

    Raises:
        DataError: If two images would have the same output files.
    """
    data: Any = run.cfg.data
    reader = SegmentationReader(
        data.images,
        data.annotations,
        data.image_suffix,
        data.annotation_suffix,
        data.image_column,
        data.annotation_column,
    )
    seen: dict[Path, str] = {}
    known: dict[Path, _Annotations] = {}
    for path in inputs:
        for image in images_of(path, column, table_format):
            if isinstance(image, BadRow):
                yield image
                continue
            annotation = None
            if image.row is not None:
                name = Path(f"{path.stem}.row{image.row}")
            else:
                file = Path(image.file)
                top = path if path.is_dir() else file.parent
                if top not in known:
                    known[top] = _Annotations(reader, top, annotations)
                shown = file.relative_to(top).as_posix()
                if path.is_dir() and known[top].is_mask(shown):
                    continue
                name = Path(shown).with_suffix("")
                annotation = known[top].of(shown)
            if name in seen:
                msg = (
                    f"{image.name} and {seen[name]} would both be written as {name}; "
                    "predict them into two folders"
                )
                raise DataError(msg)
            seen[name] = image.name
            yield MaskInput(image, name, annotation, annotations is not None)
    for found in known.values():
        found.report()


class _Annotations:
    """The annotated masks for a folder of images."""

    def __init__(self, reader: SegmentationReader, images: Path, given: Path | None) -> None:
        """Find the folder of masks.

        Args:
            reader: Reader of the run's data.
            images: The folder of images.
            given: The folder that the user named; None looks for one beside the images.
        """
        self.reader, self.images = reader, images
        self.folder = given or reader.annotations_for(images)
        self.masks: Masks | None = None if self.folder is None else reader.masks_in(self.folder)
        self.among_images = self._among_images()
        self.passed_over = 0

    def _among_images(self) -> set[str]:
        """Return the masks in the folder of images, relative to it."""
        if self.masks is None or self.folder is None:
            return set()
        images, folder = self.images.resolve(), self.folder.resolve()
        if folder == images:  # a mask without an image may be an image
            keys = {self.reader.image_key(file.path) for file in self.masks.others}
            return {mask for key, mask in self.masks.files.items() if key in keys}
        if not folder.is_relative_to(images):
            return set()
        above = folder.relative_to(images).as_posix()
        return {f"{above}/{mask}" for mask in self.masks.files.values()}

    def is_mask(self, path: str) -> bool:
        """Return whether a file of the folder of images is a mask in it, and count it."""
        found = path in self.among_images
        self.passed_over += found
        return found

    def of(self, path: str) -> Path | None:
        """Return the mask of an image, given relative to the folder of images; None without one."""
        key = self.reader.image_key(path)
        mask = None if self.masks is None or key is None else self.masks.files.get(key)
        return None if mask is None or self.folder is None else self.folder / mask

    def report(self) -> None:
        """Log how many masks lie among the images."""
        if self.passed_over:
            log.info(
                "%s: %d masks among the images are not predicted", self.images, self.passed_over
            )
