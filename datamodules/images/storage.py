"""Storage of the images of a split: decoded once and kept, or decoded each time they are read."""

from abc import abstractmethod
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Self

import numpy as np
import numpy.typing as npt
import PIL
import torch
from torch import Tensor
from torch.utils.data import Dataset

from datamodules.batches import ImageBatch
from datamodules.batching.stored_features import digest_of_tensors
from datamodules.images.content import digest_of
from datamodules.images.decoding import BadImageError, Decoded, Header, check_image, decode_image
from datamodules.images.encoded_rows import EncodedRows
from datamodules.images.rows import EncodedImage
from datamodules.images.threads import in_threads
from datamodules.reading.errors import DataError

_AT_ONCE = 1024  # images that are hashed at once


@dataclass(frozen=True)
class Decoding:
    """Settings for decoding images.

    Attributes:
        max_pixels: Largest width times height that is decoded.
        size: Height and width to which images are cropped and resized; None keeps their size.
        convert: Whether to convert images that RGB cannot show as they are.
    """

    max_pixels: int
    size: tuple[int, int] | None
    convert: bool = False

    def decode(self, image: EncodedImage) -> Decoded | BadImageError:
        """Return the pixels, or the error."""
        try:
            return decode_image(image.source, self.max_pixels, self.size, convert=self.convert)
        except BadImageError as error:
            return error

    def check(self, image: EncodedImage) -> Header | BadImageError:
        """Return what is known of an image that is decoded later, or the error."""
        try:
            return check_image(image.source, self.max_pixels, convert=self.convert)
        except BadImageError as error:
            return error


class ImageSplit(Dataset[ImageBatch]):
    """Base of both storages: a torch dataset that returns whole batches.

    Attributes:
        encoded: Row and name of each image.
        labels: Label of each image; see `LabelReader`.
        digests: [N, 32] uint8 SHA-256 of each image's content, or of its name and size if images
            were not checked.
    """

    def __init__(self, encoded: EncodedRows, digests: npt.NDArray[np.uint8]) -> None:
        self.encoded, self.digests = encoded, digests
        self.labels: Sequence[Any] | npt.NDArray[Any] = encoded.labels

    def __len__(self) -> int:
        return len(self.encoded)

    @property
    def indices(self) -> npt.NDArray[np.int64]:
        """[N] row of each image in the split's file, from 0."""
        return self.encoded.indices

    @property
    def groups(self) -> npt.NDArray[np.int64] | None:
        """[N] group of each image; None if the images have no groups."""
        return self.encoded.groups.array()

    @abstractmethod
    def take(self, positions: Sequence[int]) -> Self:
        """Return a split with the images at these positions."""

    @abstractmethod
    def pixels(self, position: int) -> Tensor:
        """Return one image, [3, H, W] uint8."""

    @abstractmethod
    def content_digest(self) -> str:
        """Return a digest of all images; splits with equal digests have equal features."""

    def rows(self) -> Iterator[tuple[int, str, Any]]:
        """Yield row, digest and label of each sample; the dataset's fingerprint covers them."""
        for index, digest, label in zip(self.indices, self.digests, self.labels, strict=True):
            yield int(index), digest.tobytes().hex(), label

    def sample_keys(self) -> Iterator[str]:
        """Yield the digests; equal images have equal digests."""
        return (digest.tobytes().hex() for digest in self.digests)

    def name_of(self, key: str) -> str:
        """Return the name of the first image with this digest."""
        same = (self.digests == np.frombuffer(bytes.fromhex(key), np.uint8)).all(axis=1)
        return self.encoded.name(int(same.argmax()))

    def positions_of(self, indices: Sequence[int]) -> list[int]:
        """Return the positions of the images of these rows."""
        rows = self.indices
        order = np.argsort(rows)
        found: list[int] = order[np.searchsorted(rows, indices, sorter=order)].tolist()
        return found

    def _batch(self, pixels: Tensor, positions: Sequence[int]) -> ImageBatch:
        labels = torch.tensor([self.labels[p] for p in positions])
        index = torch.from_numpy(self.encoded.indices_at(positions))
        return ImageBatch(pixel_values=pixels, labels=labels, index=index)


class DecodedImages(ImageSplit):
    """All images in one tensor, [M, 3, H, W] uint8; a batch is read by one indexing operation.

    The parts of a split share that tensor.

    Attributes:
        places: [N] int64 position of each image in the tensor; None if they are in its order.
    """

    def __init__(
        self,
        images: Tensor,
        encoded: EncodedRows,
        digests: npt.NDArray[np.uint8],
        places: Tensor | None = None,
    ) -> None:
        super().__init__(encoded, digests)
        self.images, self.places = images, places

    def take(self, positions: Sequence[int]) -> Self:
        """Return a split with the images at these positions."""
        wanted = torch.as_tensor(positions, dtype=torch.int64)
        places = wanted if self.places is None else self.places[wanted]
        taken = self.encoded.take(positions, sources=False)
        return type(self)(self.images, taken, self.digests[wanted.numpy()], places)

    def _chosen(self, positions: Tensor) -> Tensor:
        return self.images[positions if self.places is None else self.places[positions]]

    def pixels(self, position: int) -> Tensor:
        """Return one image, [3, H, W] uint8."""
        return self._chosen(torch.tensor(position))

    def content_digest(self) -> str:
        """Return the SHA-256 of all pixels."""
        if self.places is None:
            return digest_of_tensors([self.images])
        parts = torch.split(self.places, _AT_ONCE)
        return digest_of_tensors(self.images[part] for part in parts)

    def __getitems__(self, positions: Sequence[int]) -> ImageBatch:
        """Return a whole batch; torch's `DataLoader` calls this method if it exists."""
        return self._batch(self._chosen(torch.as_tensor(positions)), positions)


class EncodedImages(ImageSplit):
    """Images that the workers of a loader decode each time they are read."""

    def __init__(
        self, encoded: EncodedRows, decoding: Decoding, digests: npt.NDArray[np.uint8]
    ) -> None:
        super().__init__(encoded, digests)
        self.decoding = decoding

    def take(self, positions: Sequence[int]) -> Self:
        """Return a split with the images at these positions."""
        digests = self.digests[np.asarray(positions, np.int64)]
        return type(self)(self.encoded.take(positions), self.decoding, digests)

    def content_digest(self) -> str:
        """Return the SHA-256 of the complete files, the settings, and the version of Pillow."""
        images = (self.encoded[p] for p in range(len(self)))
        whole = [
            digest
            for _, digest in in_threads(lambda image: digest_of(image.source, whole=True), images)
        ]
        converted = ["converted"] if self.decoding.convert else []
        return digest_of_tensors([], whole, self.decoding.size, PIL.__version__, *converted)

    def pixels(self, position: int) -> Tensor:
        """Return one image, [3, H, W] uint8; raise `DataError` if it cannot be decoded."""
        found = self.decoding.decode(self.encoded[position])
        if isinstance(found, BadImageError):
            msg = (
                f"{self.encoded.name(position)}: {found}; fix or remove the file, then resume with "
                "ckpt_path=last; data.check=true finds such files before training"
            )
            raise DataError(msg)
        return torch.from_numpy(found.pixels.copy()).permute(2, 0, 1)

    def __getitems__(self, positions: Sequence[int]) -> ImageBatch | DataError:
        """Return a whole batch, or the error.

        An exception raised in a worker would reach the user as a traceback.
        """
        try:
            return self._batch(torch.stack([self.pixels(p) for p in positions]), positions)
        except DataError as error:
            return error
