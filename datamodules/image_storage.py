"""Images of a split, ready to be made into batches: decoded once and kept, or decoded each time."""

from abc import abstractmethod
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Self, TypeVar

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor
from torch.utils.data import Dataset

from datamodules.batches import ImageBatch
from datamodules.errors import BadRow, DataError
from datamodules.image_decoding import BadImageError, check_image, decode_image
from datamodules.image_rows import EncodedImage

_THREADS = 4
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

    def __init__(self, indices: list[int], labels: list[int], names: list[str], digests: list[str]) -> None:
        self.indices, self.labels, self.names, self.digests = indices, labels, names, digests

    def __len__(self) -> int:
        return len(self.labels)

    @abstractmethod
    def take(self, positions: Sequence[int]) -> Self:
        """The images at these positions."""

    @abstractmethod
    def pixels(self, position: int) -> Tensor:
        """One image, [3, H, W] uint8."""

    def rows(self) -> Iterable[tuple[int, str, int]]:
        """Row, content's digest and label of each: what tells two datasets apart."""
        return zip(self.indices, self.digests, self.labels, strict=True)

    def contents(self) -> list[str]:
        """The digests; an image that stands in two splits has the same in both."""
        return self.digests

    def _facts(self, positions: Sequence[int]) -> tuple[list[int], list[int], list[str], list[str]]:
        kept = ([values[p] for p in positions] for values in (self.indices, self.labels, self.names, self.digests))
        return tuple(kept)  # type: ignore[return-value]

    def _batch(self, pixels: Tensor, positions: Sequence[int]) -> ImageBatch:
        labels, index = (torch.tensor([values[p] for p in positions]) for values in (self.labels, self.indices))
        return ImageBatch(pixel_values=pixels, labels=labels, index=index)


class DecodedImages(ImageSplit):
    """All images in one tensor, [N, 3, H, W] uint8; a batch is one read of it."""

    def __init__(self, images: Tensor, indices: list[int], labels: list[int], names: list[str], digests: list[str]) -> None:
        super().__init__(indices, labels, names, digests)
        self.images = images

    def take(self, positions: Sequence[int]) -> Self:
        """The images at these positions."""
        return type(self)(self.images[torch.as_tensor(positions, dtype=torch.int64)], *self._facts(positions))

    def pixels(self, position: int) -> Tensor:
        """One image, [3, H, W] uint8."""
        return self.images[position]

    def __getitems__(self, positions: Sequence[int]) -> ImageBatch:
        """A whole batch, as torch's loader asks for it."""
        return self._batch(self.images[torch.as_tensor(positions)], positions)


class EncodedImages(ImageSplit):
    """Images that are decoded each time they are read, in the loader's workers."""

    def __init__(self, images: Sequence[EncodedImage], decoding: Decoding, digests: list[str]) -> None:
        super().__init__([i.index for i in images], [i.label for i in images], [i.name for i in images], digests)
        self.encoded, self.decoding = list(images), decoding

    def take(self, positions: Sequence[int]) -> Self:
        """The images at these positions."""
        digests = [self.digests[p] for p in positions]
        return type(self)([self.encoded[p] for p in positions], self.decoding, digests)

    def pixels(self, position: int) -> Tensor:
        """One image, [3, H, W] uint8; raises `DataError` where it can no longer be decoded."""
        found = self.decoding.decode(self.encoded[position])
        if isinstance(found, BadImageError):
            msg = f"{self.names[position]}: {found}; mend the file, or take it away"
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
        DataError: If images that are kept together differ in size.
    """
    good: list[EncodedImage] = []
    digests: list[str] = []
    decoded: list[npt.NDArray[np.uint8]] = []
    bad: list[BadRow] = []
    look = decoding.decode if in_memory else decoding.check
    for entry, found in in_threads(lambda entry: None if isinstance(entry, BadRow) else look(entry), images):
        if isinstance(entry, BadRow):
            bad.append(entry)
        elif isinstance(found, BadImageError):
            bad.append(entry.fault(split, str(found)))
        else:
            good.append(entry)
            digests.append(entry.digest())
            if isinstance(found, np.ndarray):
                decoded.append(found)
    if not in_memory:
        return EncodedImages(good, decoding, digests), bad
    for image, pixels in zip(good, decoded, strict=True):
        if pixels.shape != decoded[0].shape:
            (h, w), (h0, w0) = pixels.shape[:2], decoded[0].shape[:2]
            msg = f"{image.name} is {w} x {h} pixels and {good[0].name} is {w0} x {h0}; set data.size to one side for all"
            raise DataError(msg)
    stacked = np.stack(decoded) if decoded else np.zeros((0, 1, 1, 3), np.uint8)
    pixels = torch.from_numpy(stacked).permute(0, 3, 1, 2).contiguous()
    return DecodedImages(pixels, [i.index for i in good], [i.label for i in good], [i.name for i in good], digests), bad


def in_threads(work: Callable[[_In], _Out], items: Iterable[_In]) -> list[tuple[_In, _Out]]:
    """Do a piece of work for each item, several at a time, in order: Pillow decodes outside of the interpreter's lock."""
    entries = list(items)
    with ThreadPoolExecutor(_THREADS) as pool:
        return list(zip(entries, pool.map(work, entries), strict=True))
