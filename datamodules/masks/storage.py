"""Scenes of a split, decoded whenever they are read: checked once, before anything is trained."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any, Self

import numpy as np
import numpy.typing as npt
import torch
from torch.utils.data import Dataset

from datamodules.batches import IGNORE_INDEX, SceneBatch
from datamodules.images.decoding import BadImageError, check_image, decode_image, decode_label_map
from datamodules.images.storage import in_threads
from datamodules.masks.class_list import ClassList
from datamodules.masks.rows import EncodedScene
from datamodules.masks.transforms import Pixels, SceneAugmenter, resized_image, stretched
from datamodules.reading.errors import BadRow, DataError
from datamodules.reading.splits import random_split


@dataclass(frozen=True)
class SceneSplit:
    """The usable scenes of a split.

    Attributes:
        scenes: Encoded.
        digests: Of image and label map of each.
        pixels: [N, K] int64, pixels of each class.
        class_list: What the values of label maps mean.
        max_pixels: Width times height that is still decoded.
    """

    scenes: Sequence[EncodedScene]
    digests: Sequence[tuple[str, str]]
    pixels: npt.NDArray[np.int64]
    class_list: ClassList
    max_pixels: int

    def __len__(self) -> int:
        return len(self.scenes)

    @property
    def classes(self) -> set[int]:
        """The classes that occur."""
        return set(np.flatnonzero(self.pixels.sum(axis=0)).tolist())

    @property
    def indices(self) -> list[int]:
        """Row in the split's file of each."""
        return [scene.index for scene in self.scenes]

    def divided(self, fraction: float, seed: int) -> tuple[list[int], list[int]]:
        """Positions of two parts, by index and seed alone."""
        return random_split(len(self), fraction, seed)

    def take(self, positions: Sequence[int]) -> Self:
        """The scenes at these positions."""
        kept = [self.scenes[p] for p in positions], [self.digests[p] for p in positions], self.pixels[list(positions)]
        return type(self)(*kept, self.class_list, self.max_pixels)

    def rows(self) -> Iterable[Sequence[Any]]:
        """The class list, which says what label maps mean; row and digests of each: what tells two datasets apart."""
        yield [self.class_list.as_plain()]
        for scene, digests in zip(self.scenes, self.digests, strict=True):
            yield scene.index, *digests

    def contents(self) -> list[str]:
        """The images' digests."""
        return [image for image, _ in self.digests]

    def name_of(self, content: str) -> str:
        """The name of the first image with this digest."""
        return self.scenes[self.contents().index(content)].image.name

    def scene(self, position: int) -> tuple[Pixels, Pixels]:
        """Image [H, W, 3] and classes [H, W] as they are stored.

        Raises:
            DataError: If it can no longer be read.
        """
        scene = self.scenes[position]
        try:
            image = decode_image(scene.image.source, self.max_pixels, upright=False)
            labels, fault = self.class_list.decode(decode_label_map(scene.annotation, self.max_pixels))
        except BadImageError as error:
            fault = str(error)
        if fault:
            msg = f"{scene.image.name} or its label map: {fault}; mend the file or take it away, then go on with ckpt_path=last"
            raise DataError(msg)
        return image, labels


class TrainingScenes(Dataset[SceneBatch]):
    """Whole batches of changed scenes; asked for by (epoch, position), so that a worker need not be told the epoch."""

    def __init__(self, split: SceneSplit, augmenter: SceneAugmenter) -> None:
        self.split, self.augmenter = split, augmenter

    def __getitems__(self, drawn: Sequence[tuple[int, int]]) -> SceneBatch | DataError:
        """A whole batch; a fault is handed over, for a worker's exception would reach the user as its traceback."""
        rows = [self.split.scenes[position].index for _, position in drawn]
        try:
            scenes = [
                self.augmenter(*self.split.scene(position), epoch, row)
                for (epoch, position), row in zip(drawn, rows, strict=True)
            ]
        except DataError as error:
            return error
        return scene_batch([image for image, _ in scenes], [labels for _, labels in scenes], rows)


class EvaluationScenes(Dataset[SceneBatch]):
    """Whole batches of scenes as they are measured."""

    def __init__(self, split: SceneSplit, size: int, *, native: bool) -> None:
        """State how scenes are brought to a size.

        Args:
            split: The scenes.
            size: Side of the images in pixels.
            native: Whether label maps keep their own size instead of the images'.
        """
        self.split, self.size, self.native = split, size, native

    def __getitems__(self, positions: Sequence[int]) -> SceneBatch | DataError:
        """A whole batch; see `TrainingScenes`."""
        try:
            scenes = [self._measured(*self.split.scene(position)) for position in positions]
        except DataError as error:
            return error
        rows = [self.split.scenes[position].index for position in positions]
        return scene_batch([image for image, _ in scenes], [labels for _, labels in scenes], rows)

    def _measured(self, image: Pixels, labels: Pixels) -> tuple[Pixels, Pixels]:
        return (resized_image(image, self.size), labels) if self.native else stretched(image, labels, self.size)


def scene_batch(images: Sequence[Pixels], labels: Sequence[Pixels], rows: Sequence[int]) -> SceneBatch:
    """Put scenes together; label maps of different sizes are padded on the right and below."""
    height, width = (max(side) for side in zip(*(one.shape for one in labels), strict=True))
    padded = np.full((len(labels), height, width), IGNORE_INDEX, np.uint8)
    for place, one in zip(padded, labels, strict=True):
        place[: one.shape[0], : one.shape[1]] = one
    return SceneBatch(
        pixel_values=torch.from_numpy(np.stack([image.transpose(2, 0, 1) for image in images])),
        labels=torch.from_numpy(padded),
        sizes=torch.tensor([one.shape for one in labels]),
        index=torch.tensor(rows),
    )


def check_scenes(
    scenes: Iterable[EncodedScene | BadRow], split: str, class_list: ClassList, max_pixels: int
) -> tuple[SceneSplit, list[BadRow]]:
    """Check the scenes of a split: each image by its header, each label map by its values.

    Args:
        scenes: As read.
        split: Named in bad rows.
        class_list: What the values mean.
        max_pixels: Width times height that is still decoded.

    Returns:
        The usable scenes, and the bad rows in order.
    """
    good: list[EncodedScene] = []
    digests: list[tuple[str, str]] = []
    pixels: list[npt.NDArray[np.int64]] = []
    bad: list[BadRow] = []

    def look(entry: EncodedScene | BadRow) -> BadRow | tuple[npt.NDArray[np.int64], tuple[str, str]]:
        if isinstance(entry, BadRow):
            return entry
        found = _looked_at(entry, split, class_list, max_pixels)
        return found if isinstance(found, BadRow) else (found, entry.digests())

    for entry, found in in_threads(look, list(scenes)):
        if isinstance(found, BadRow):
            bad.append(found)
        elif isinstance(entry, EncodedScene):
            good.append(entry)
            pixels.append(found[0])
            digests.append(found[1])
    counts = np.stack(pixels) if pixels else np.zeros((0, len(class_list.names)), np.int64)
    return SceneSplit(good, digests, counts, class_list, max_pixels), bad


def _looked_at(scene: EncodedScene, split: str, class_list: ClassList, max_pixels: int) -> BadRow | npt.NDArray[np.int64]:
    """Pixels of each class [K], or what is wrong."""
    try:
        height, width = check_image(scene.image.source, max_pixels)
    except BadImageError as error:
        return scene.image.fault(split, str(error))
    try:
        values = decode_label_map(scene.annotation, max_pixels)
    except BadImageError as error:
        return scene.annotation_fault(split, str(error))
    if values.shape != (height, width):
        reason = f"is {values.shape[1]} x {values.shape[0]} pixels, and its image is {width} x {height}"
        return scene.annotation_fault(split, reason)
    labels, fault = class_list.decode(values)
    if fault:
        return scene.annotation_fault(split, fault)
    return np.bincount(labels.ravel(), minlength=IGNORE_INDEX + 1)[: len(class_list.names)].astype(np.int64)
