"""Decoding, checking or only counting the images of a split, once before training."""

import hashlib
import logging
import os
from collections import Counter
from collections.abc import Iterable

import numpy as np
import numpy.typing as npt
import torch

from datamodules.images.content import read_with_digest
from datamodules.images.decoding import BadImageError, Decoded, Header
from datamodules.images.duplicates import DIGEST
from datamodules.images.encoded_rows import EncodedRows
from datamodules.images.rows import EncodedImage
from datamodules.images.storage import DecodedImages, Decoding, EncodedImages, ImageSplit
from datamodules.images.threads import in_threads
from datamodules.reading.errors import BadRow, DataError, check_count
from datamodules.reading.progress import tracked

log = logging.getLogger(__name__)

_LARGEST_SHARE = 0.6  # share of the memory that images may take
_TOGETHER = 32  # small images take less time than handing them to a thread


def store(
    images: Iterable[EncodedImage | BadRow],
    split: str,
    decoding: Decoding,
    *,
    in_memory: bool,
    check: bool = True,
) -> tuple[ImageSplit, list[BadRow]]:
    """Decode or check the images of a split.

    Args:
        images: Images and bad rows as read.
        split: Split that bad rows name.
        decoding: Settings for decoding.
        in_memory: Whether to decode the images now and keep them.
        check: Whether to check images that are not kept; otherwise no file is opened.

    Returns:
        The usable images, and the bad rows: those of reading first, then those of decoding.

    Raises:
        DataError: If images to be kept in memory differ in size or do not fit.
    """
    listed = tracked(images, f"listing {split}", unit="images")
    encoded, bad = EncodedRows.gather(listed)
    found = len(encoded) + len(bad)
    stored: ImageSplit
    faults: list[BadRow] = []
    if in_memory:
        stored, faults = _decoded(encoded, split, decoding)
    elif check:
        stored, faults = _checked(encoded, split, decoding)
    else:
        stored = EncodedImages(encoded, decoding, _digests_of_names(encoded))
    bad += faults
    check_count(split, found, len(stored), len(bad))
    return stored, bad


class _Kept:
    """The images that can be used so far, with what is counted."""

    def __init__(self, split: str) -> None:
        self.split, self.positions = split, list[int]()
        self.digests, self.conversions = bytearray(), Counter[str]()
        self.bad: list[BadRow] = []

    def add(
        self,
        position: int,
        image: EncodedImage,
        result: tuple[Decoded | Header | BadImageError, bytes],
    ) -> bool:
        """Add an image, or its fault; return whether it can be used."""
        outcome, digest = result
        if isinstance(outcome, BadImageError):
            hint = "; data.convert=true converts it" if outcome.convertible else ""
            self.bad.append(image.fault(self.split, f"{outcome}{hint}"))
            return False
        self.positions.append(position)
        self.digests += digest
        self.conversions.update(outcome.conversions)
        return True

    def report(self) -> npt.NDArray[np.uint8]:
        """Log the conversions; return the digests [N, 32]."""
        report_conversions(self.split, self.conversions)
        return np.frombuffer(bytes(self.digests), np.uint8).reshape(-1, DIGEST)


def report_conversions(split: str, conversions: Counter[str]) -> None:
    """Log how many images of a split were converted, in one line."""
    if conversions:
        kinds = ", ".join(f"{count} {kind}" for kind, count in conversions.most_common())
        log.info("%s: data.convert=true converted images: %s", split, kinds)


def _decoded(
    encoded: EncodedRows, split: str, decoding: Decoding
) -> tuple[DecodedImages, list[BadRow]]:
    def load(image: EncodedImage) -> tuple[Decoded | BadImageError, bytes]:
        return _with_digest(image, decoding)

    kept, images = _Kept(split), np.empty((0, 3, 1, 1), np.uint8)
    results = in_threads(load, (encoded[p] for p in range(len(encoded))), _TOGETHER)
    shown = tracked(results, f"decoding {split}", len(encoded), "images")
    for position, (image, result) in enumerate(shown):
        if kept.add(position, image, result) and isinstance(result[0], Decoded):
            pixels, count = result[0].pixels, len(kept.positions)
            if count == 1:
                images = _allocate(len(encoded), *pixels.shape[:2])
            if pixels.shape[:2] != images.shape[2:]:
                raise _other_size(image.name, pixels, encoded.name(kept.positions[0]), images)
            images[count - 1] = pixels.transpose(2, 0, 1)
    digests = kept.report()
    good = encoded.take(kept.positions, sources=False)
    return DecodedImages(torch.from_numpy(images[: len(good)]), good, digests), kept.bad


def _with_digest(image: EncodedImage, decoding: Decoding) -> tuple[Decoded | BadImageError, bytes]:
    """Decode an image and hash its content; a small file is read only once."""
    try:
        content, digest = read_with_digest(image.source)
    except (OSError, ValueError):
        return decoding.decode(image), b""  # the same error, with its reason
    source = EncodedImage(image.index, content, image.label, image.file, image.row)
    return decoding.decode(source), digest


def _checked(
    encoded: EncodedRows, split: str, decoding: Decoding
) -> tuple[EncodedImages, list[BadRow]]:
    def load(image: EncodedImage) -> tuple[Header | BadImageError, bytes]:
        header = decoding.check(image)
        return header, b"" if isinstance(header, BadImageError) else read_with_digest(image.source)[
            1
        ]

    kept = _Kept(split)
    results = in_threads(load, (encoded[p] for p in range(len(encoded))), _TOGETHER)
    shown = tracked(results, f"checking {split}", len(encoded), "images")
    for position, (image, result) in enumerate(shown):
        kept.add(position, image, result)
    digests = kept.report()
    good = encoded if not kept.bad else encoded.take(kept.positions)
    return EncodedImages(good, decoding, digests), kept.bad


def _digests_of_names(encoded: EncodedRows) -> npt.NDArray[np.uint8]:
    """Return [N, 32] uint8 digests of the name and the size of each image; no file is opened."""
    digests = bytearray()
    for position in range(len(encoded)):
        facts = f"{encoded.name(position)}\0{encoded.size(position)}"
        digests += hashlib.sha256(facts.encode("utf-8", "surrogateescape")).digest()
    return np.frombuffer(bytes(digests), np.uint8).reshape(-1, DIGEST)


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


def _other_size(
    name: str, pixels: npt.NDArray[np.uint8], first: str, images: npt.NDArray[np.uint8]
) -> DataError:
    (h, w), (h0, w0) = pixels.shape[:2], images.shape[2:]
    return DataError(
        f"{name} is {w} x {h} pixels and {first} is {w0} x {h0}; set data.size to resize all"
    )


def physical_memory() -> float:
    """Return the memory of this machine in bytes; infinity if it is unknown."""
    try:
        return float(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES"))
    except (AttributeError, ValueError, OSError):
        return float("inf")
