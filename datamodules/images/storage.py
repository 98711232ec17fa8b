"""Images of a split, ready to be made into batches: decoded once and kept, or decoded each time."""

import os
from abc import abstractmethod
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Self, TypeVar

import numpy as np
import numpy.typing as npt
import PIL
import torch
from torch import Tensor
from torch.utils.data import Dataset

from datamodules.batches import ImageBatch
from datamodules.batching.stored_features import digest_of_tensors
from datamodules.images.decoding import BadImageError, check_image, decode_image
from datamodules.images.rows import EncodedImage, digest_of
from datamodules.reading.errors import BadRow, DataError
from datamodules.reading.splits import stratified_split

_THREADS = 4
_LARGEST_SHARE = 0.6  # of the memory, that images may take
_In = TypeVar("_In")
_Out = TypeVar("_Out")


@dataclass
class Decoding:
    """How images are decoded.

    Attributes:
        max_pixels: Width times height that is still decoded.
        size: Height and width of the part that is kept; None keeps the image as it is.
    """

    max_pixels: int
    size: tuple[int, int] | None

    def decode(self, image: EncodedImage) -> npt.NDArray[np.uint8] | BadImageError:
        """[H, W, 3] uint8, or what is wrong."""
        try:
            return decode_image(image.source, self.max_pixels, self.size)
        except BadImageError as error:
            return error

    def check(self, image: EncodedImage) -> BadImageError | None:
        """What is wrong with an image that is not to be decoded yet."""
        try:
            check_image(image.source, self.max_pixels)
        except BadImageError as error:
            return error
        return None


class ImageSplit(Dataset[ImageBatch]):
    """What both kinds of storage have; a torch dataset of whole batches.

    Attributes:
        indices: Row in the split's file.
        labels: 0..K-1.
        names: What a person recognises each image by.
        digests: What tells two images apart.
    """

    def __init__(
        self, indices: list[int], labels: list[int], names: list[str], digests: list[str]
    ) -> None:
        self.indices, self.labels, self.names, self.digests = indices, labels, names, digests

    def __len__(self) -> int:
        return len(self.labels)

    @property
    def classes(self) -> set[int]:
        """The classes that occur."""
        return set(self.labels)

    def divided(self, fraction: float, seed: int) -> tuple[list[int], list[int]]:
        """Positions of two parts with the same share of every class."""
        return stratified_split(self.labels, fraction, seed)

    @abstractmethod
    def take(self, positions: Sequence[int]) -> Self:
        """The images at these positions."""

    @abstractmethod
    def pixels(self, position: int) -> Tensor:
        """One image, [3, H, W] uint8."""

    @abstractmethod
    def content(self) -> str:
        """Of all pixels that are read: two splits with one content give the same features."""

    def rows(self) -> Iterable[tuple[int, str, int]]:
        """Row, content's digest and label of each: what tells two datasets apart."""
        return zip(self.indices, self.digests, self.labels, strict=True)

    def contents(self) -> list[str]:
        """The digests; an image that stands in two splits has the same in both."""
        return self.digests

    def name_of(self, content: str) -> str:
        """The name of the first image with this digest."""
        return self.names[self.digests.index(content)]

    def _facts(self, positions: Sequence[int]) -> tuple[list[int], list[int], list[str], list[str]]:
        kept = (
            [values[p] for p in positions]
            for values in (self.indices, self.labels, self.names, self.digests)
        )
        return tuple(kept)  # type: ignore[return-value]

    def _batch(self, pixels: Tensor, positions: Sequence[int]) -> ImageBatch:
        labels, index = (
            torch.tensor([values[p] for p in positions]) for values in (self.labels, self.indices)
        )
        return ImageBatch(pixel_values=pixels, labels=labels, index=index)


class DecodedImages(ImageSplit):
    """All images in one tensor, [N, 3, H, W] uint8; a batch is one read of it."""

    def __init__(
        self,
        images: Tensor,
        indices: list[int],
        labels: list[int],
        names: list[str],
        digests: list[str],
    ) -> None:
        super().__init__(indices, labels, names, digests)
        self.images = images

    def take(self, positions: Sequence[int]) -> Self:
        """The images at these positions."""
        return type(self)(
            self.images[torch.as_tensor(positions, dtype=torch.int64)], *self._facts(positions)
        )

    def pixels(self, position: int) -> Tensor:
        """One image, [3, H, W] uint8."""
        return self.images[position]

    def content(self) -> str:
        """SHA-256 of all pixels."""
        return digest_of_tensors([self.images])

    def __getitems__(self, positions: Sequence[int]) -> ImageBatch:
        """A whole batch, as torch's loader asks for it."""
        return self._batch(self.images[torch.as_tensor(positions)], positions)


class EncodedImages(ImageSplit):
    """Images that are decoded each time they are read, in the loader's workers."""

    def __init__(
        self, images: Sequence[EncodedImage], decoding: Decoding, digests: list[str]
    ) -> None:
        super().__init__(
            [i.index for i in images], [i.label for i in images], [i.name for i in images], digests
        )
        self.encoded, self.decoding = list(images), decoding

    def take(self, positions: Sequence[int]) -> Self:
        """The images at these positions."""
        digests = [self.digests[p] for p in positions]
        return type(self)([self.encoded[p] for p in positions], self.decoding, digests)

    def content(self) -> str:
        """SHA-256 of the files, read to their ends, and of how they are decoded."""
        whole = [
            digest
            for _, digest in in_threads(
                lambda image: digest_of(image.source, whole=True), self.encoded
            )
        ]
        return digest_of_tensors([], whole, self.decoding.size, PIL.__version__)

    def pixels(self, position: int) -> Tensor:
        """One image, [3, H, W] uint8; raises `DataError` where it can no longer be decoded."""
        found = self.decoding.decode(self.encoded[position])
        if isinstance(found, BadImageError):
            msg = f"{self.names[position]}: {found}; mend the file or take it away, then go on with ckpt_path=last"
            raise DataError(msg)
        return torch.from_numpy(found.copy()).permute(2, 0, 1)

    def __getitems__(self, positions: Sequence[int]) -> ImageBatch | DataError:
        """A whole batch; a fault is handed over, for a worker's exception would reach the user as its traceback."""
        try:
            return self._batch(torch.stack([self.pixels(p) for p in positions]), positions)
        except DataError as error:
            return error


def store(
    images: Iterable[EncodedImage | BadRow], split: str, decoding: Decoding, *, in_memory: bool
) -> tuple[ImageSplit, list[BadRow]]:
    """Decode or check the images of a split.

    Args:
        images: As read.
        split: Named in bad rows.
        decoding: How they are decoded.
        in_memory: Whether they are decoded now and kept.

    Returns:
        The usable images, and the bad rows in order.

    Raises:
        DataError: If images that are kept together differ in size or do not fit into memory.
    """
    entries = list(images)
    good: list[EncodedImage] = []
    digests: list[str] = []
    bad: list[BadRow] = []
    kept = np.empty((0, 3, 1, 1), np.uint8)
    look = decoding.decode if in_memory else decoding.check
    for entry, found in in_threads(
        lambda entry: None if isinstance(entry, BadRow) else look(entry), entries
    ):
        if isinstance(entry, BadRow):
            bad.append(entry)
            continue
        if isinstance(found, BadImageError):
            bad.append(entry.fault(split, str(found)))
            continue
        if isinstance(found, np.ndarray):
            if not good:
                kept = _room(len(entries), *found.shape[:2])
            _keep(found, kept, entry, good)
        good.append(entry)
        digests.append(entry.digest())
    if not in_memory:
        return EncodedImages(good, decoding, digests), bad
    facts = [i.index for i in good], [i.label for i in good], [i.name for i in good], digests
    return DecodedImages(torch.from_numpy(kept[: len(good)]), *facts), bad


def _room(count: int, height: int, width: int) -> npt.NDArray[np.uint8]:
    """[count, 3, height, width], not filled; raises `DataError` where it would take most of the memory."""
    needed, there = 3 * count * height * width, physical_memory()
    if needed > there * _LARGEST_SHARE:
        msg = (
            f"{count} images of {width} x {height} pixels take {needed / 2**30:.1f} GiB, and this machine has "
            f"{there / 2**30:.1f}; set data.in_memory=false with data.num_workers, or a smaller data.size"
        )
        raise DataError(msg)
    return np.empty((count, 3, height, width), np.uint8)


def _keep(
    pixels: npt.NDArray[np.uint8],
    kept: npt.NDArray[np.uint8],
    image: EncodedImage,
    before: Sequence[EncodedImage],
) -> None:
    if pixels.shape[:2] != kept.shape[2:]:
        (h, w), (h0, w0) = pixels.shape[:2], kept.shape[2:]
        msg = f"{image.name} is {w} x {h} pixels and {before[0].name} is {w0} x {h0}; set data.size to one side for all"
        raise DataError(msg)
    kept[len(before)] = pixels.transpose(2, 0, 1)


def physical_memory() -> float:
    """Bytes of memory of this machine; infinite where it does not say."""
    try:
        return float(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES"))
    except (AttributeError, ValueError, OSError):
        return float("inf")


def in_threads(work: Callable[[_In], _Out], items: Sequence[_In]) -> Iterator[tuple[_In, _Out]]:
    """Do a piece of work for each item, several at a time, in order: Pillow decodes outside of the interpreter's lock."""
    with ThreadPoolExecutor(_THREADS) as pool:
        yield from zip(items, pool.map(work, items), strict=True)
