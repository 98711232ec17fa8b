"""Storage of the images of a split: decoded once and kept, or decoded each time they are read."""

import os
from abc import abstractmethod
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any, Self, TypeVar

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

_THREADS = 4
_LARGEST_SHARE = 0.6  # share of the memory that images may take
_In = TypeVar("_In")
_Out = TypeVar("_Out")


@dataclass
class Decoding:
    """Settings for decoding images.

    Attributes:
        max_pixels: Largest width times height that is decoded.
        size: Height and width to which images are cropped and resized; None keeps their size.
    """

    max_pixels: int
    size: tuple[int, int] | None

    def decode(self, image: EncodedImage) -> npt.NDArray[np.uint8] | BadImageError:
        """Return the pixels, [H, W, 3] uint8, or the error."""
        try:
            return decode_image(image.source, self.max_pixels, self.size)
        except BadImageError as error:
            return error

    def check(self, image: EncodedImage) -> BadImageError | None:
        """Return the error of an image that is decoded later; None if there is none."""
        try:
            check_image(image.source, self.max_pixels)
        except BadImageError as error:
            return error
        return None


class ImageSplit(Dataset[ImageBatch]):
    """Base of both storages: a torch dataset that returns whole batches.

    Attributes:
        indices: Row of each image in the split's file, from 0.
        labels: Label of each image; see `LabelReader`.
        names: Name by which the user recognises each image.
        digests: Digest of the content of each image.
    """

    def __init__(
        self, indices: list[int], labels: list[Any], names: list[str], digests: list[str]
    ) -> None:
        self.indices, self.labels, self.names, self.digests = indices, labels, names, digests

    def __len__(self) -> int:
        return len(self.labels)

    @abstractmethod
    def take(self, positions: Sequence[int]) -> Self:
        """Return a split with the images at these positions."""

    @abstractmethod
    def pixels(self, position: int) -> Tensor:
        """Return one image, [3, H, W] uint8."""

    @abstractmethod
    def content_digest(self) -> str:
        """Return a digest of all images; splits with equal digests have equal features."""

    def rows(self) -> Iterable[tuple[int, str, Any]]:
        """Return row, digest and label of each sample; the dataset's fingerprint covers them."""
        return zip(self.indices, self.digests, self.labels, strict=True)

    def sample_keys(self) -> list[str]:
        """Return the digests; equal images have equal digests."""
        return self.digests

    def name_of(self, key: str) -> str:
        """Return the name of the first image with this digest."""
        return self.names[self.digests.index(key)]

    def _facts(self, positions: Sequence[int]) -> tuple[list[int], list[Any], list[str], list[str]]:
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
    """All images in one tensor, [N, 3, H, W] uint8; a batch is read by one indexing operation."""

    def __init__(
        self,
        images: Tensor,
        indices: list[int],
        labels: list[Any],
        names: list[str],
        digests: list[str],
    ) -> None:
        super().__init__(indices, labels, names, digests)
        self.images = images

    def take(self, positions: Sequence[int]) -> Self:
        """Return a split with the images at these positions."""
        return type(self)(
            self.images[torch.as_tensor(positions, dtype=torch.int64)], *self._facts(positions)
        )

    def pixels(self, position: int) -> Tensor:
        """Return one image, [3, H, W] uint8."""
        return self.images[position]

    def content_digest(self) -> str:
        """Return the SHA-256 of all pixels."""
        return digest_of_tensors([self.images])

    def __getitems__(self, positions: Sequence[int]) -> ImageBatch:
        """Return a whole batch; torch's `DataLoader` calls this method if it exists."""
        return self._batch(self.images[torch.as_tensor(positions)], positions)


class EncodedImages(ImageSplit):
    """Images that the workers of a loader decode each time they are read."""

    def __init__(
        self, images: Sequence[EncodedImage], decoding: Decoding, digests: list[str]
    ) -> None:
        super().__init__(
            [i.index for i in images], [i.label for i in images], [i.name for i in images], digests
        )
        self.encoded, self.decoding = list(images), decoding

    def take(self, positions: Sequence[int]) -> Self:
        """Return a split with the images at these positions."""
        digests = [self.digests[p] for p in positions]
        return type(self)([self.encoded[p] for p in positions], self.decoding, digests)

    def content_digest(self) -> str:
        """Return the SHA-256 of the complete files, the size, and the version of Pillow."""
        whole = [
            digest
            for _, digest in in_threads(
                lambda image: digest_of(image.source, whole=True), self.encoded
            )
        ]
        return digest_of_tensors([], whole, self.decoding.size, PIL.__version__)

    def pixels(self, position: int) -> Tensor:
        """Return one image, [3, H, W] uint8; raise `DataError` if it can no longer be decoded."""
        found = self.decoding.decode(self.encoded[position])
        if isinstance(found, BadImageError):
            msg = (
                f"{self.names[position]}: {found}; "
                "fix or remove the file, then resume with ckpt_path=last"
            )
            raise DataError(msg)
        return torch.from_numpy(found.copy()).permute(2, 0, 1)

    def __getitems__(self, positions: Sequence[int]) -> ImageBatch | DataError:
        """Return a whole batch, or the error.

        An exception raised in a worker would reach the user as a traceback.
        """
        try:
            return self._batch(torch.stack([self.pixels(p) for p in positions]), positions)
        except DataError as error:
            return error


def store(
    images: Iterable[EncodedImage | BadRow], split: str, decoding: Decoding, *, in_memory: bool
) -> tuple[ImageSplit, list[BadRow]]:
    """Decode or check the images of a split.

    Args:
        images: Images and bad rows as read.
        split: Split that bad rows name.
        decoding: Settings for decoding.
        in_memory: Whether to decode the images now and keep them.

    Returns:
        The usable images, and the bad rows in order.

    Raises:
        DataError: If images to be kept in memory differ in size or do not fit.
    """
    entries = list(images)
    good: list[EncodedImage] = []
    digests: list[str] = []
    bad: list[BadRow] = []
    kept = np.empty((0, 3, 1, 1), np.uint8)
    load = decoding.decode if in_memory else decoding.check
    # The result is an array of pixels, None for an image that was only checked, or the error.
    for entry, result in in_threads(
        lambda entry: None if isinstance(entry, BadRow) else load(entry), entries
    ):
        if isinstance(entry, BadRow):
            bad.append(entry)
        elif isinstance(result, BadImageError):
            bad.append(entry.fault(split, str(result)))
        else:
            if isinstance(result, np.ndarray):
                if not good:
                    kept = _allocate(len(entries), *result.shape[:2])
                _check_size(result, kept, entry, good)
                kept[len(good)] = result.transpose(2, 0, 1)
            good.append(entry)
            digests.append(entry.digest())
    if not in_memory:
        return EncodedImages(good, decoding, digests), bad
    facts = [i.index for i in good], [i.label for i in good], [i.name for i in good], digests
    return DecodedImages(torch.from_numpy(kept[: len(good)]), *facts), bad


def _allocate(count: int, height: int, width: int) -> npt.NDArray[np.uint8]:
    """Return an uninitialised array [count, 3, height, width].

    Raises:
        DataError: If the array would take too large a share of the memory.
    """
    needed, memory = 3 * count * height * width, physical_memory()
    if needed > memory * _LARGEST_SHARE:
        msg = (
            f"{count} images of {width} x {height} pixels take {needed / 2**30:.1f} GiB, and this "
            f"machine has {memory / 2**30:.1f}; set data.in_memory=false with data.num_workers, "
            "or a smaller data.size"
        )
        raise DataError(msg)
    return np.empty((count, 3, height, width), np.uint8)


def _check_size(
    pixels: npt.NDArray[np.uint8],
    kept: npt.NDArray[np.uint8],
    image: EncodedImage,
    before: Sequence[EncodedImage],
) -> None:
    if pixels.shape[:2] != kept.shape[2:]:
        (h, w), (h0, w0) = pixels.shape[:2], kept.shape[2:]
        msg = (
            f"{image.name} is {w} x {h} pixels and {before[0].name} is {w0} x {h0}; "
            "set data.size to resize all"
        )
        raise DataError(msg)


def physical_memory() -> float:
    """Return the memory of this machine in bytes; infinity if it is unknown."""
    try:
        return float(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES"))
    except (AttributeError, ValueError, OSError):
        return float("inf")


def in_threads(work: Callable[[_In], _Out], items: Sequence[_In]) -> Iterator[tuple[_In, _Out]]:
    """Apply a function to each item in threads and yield (item, result) in order.

    Threads help because Pillow releases the interpreter lock while it decodes.
    """
    with ThreadPoolExecutor(_THREADS) as pool:
        yield from zip(items, pool.map(work, items), strict=True)
