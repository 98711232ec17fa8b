"""Decoding of one image; images that RGB cannot show faithfully are rejected or converted.

See `fidelity` for these images, and `orientation` for how EXIF tags turn an image.
"""

import io
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageOps, UnidentifiedImageError

from datamodules.images.fidelity import (
    HEAD,
    TRANSPARENT,
    Loss,
    as_rgb,
    depth,
    is_transparent,
    losses_in_header,
    may_be_transparent,
)
from datamodules.images.orientation import (
    orientation_in_header,
    orientation_of,
    turned,
    turned_size,
)
from datamodules.reading.foreign import other_format
from run_folders.errors import brief

_SHORTEST_SIDE = 2
_FORMATS = ("PNG", "JPEG", "WEBP", "BMP", "GIF", "TIFF")  # Pillow opens some JPEG files as MPO
_TAIL = 12  # bytes; length of a PNG's last chunk
_BRAND_AT = 8  # position of the brand in a file of the HEIF family
# Beginning of a file, or brand -> the format, which Thaw does not read.
_OTHER_FORMATS = {
    b"8BPS": "Photoshop", b"%PDF": "PDF", b"<svg": "SVG", b"\xff\x0a": "JPEG XL",
    b"\0\0\0\x0cJXL ": "JPEG XL", b"\0\0\0\x0cjP  ": "JPEG 2000", b"\xff\x4f\xff\x51": "JPEG 2000",
}  # fmt: skip
_HEIF_BRANDS = {
    **dict.fromkeys((b"avif", b"avis"), "AVIF"),
    **dict.fromkeys(
        (b"heic", b"heix", b"heim", b"heis", b"hevc", b"hevx", b"mif1", b"msf1"), "HEIC"
    ),
}


class BadImageError(ValueError):
    """An image cannot be used; the message has only the reason, not the file.

    Attributes:
        convertible: Whether `data.convert` would make it usable.
    """

    def __init__(self, reason: str, *, convertible: bool = False) -> None:
        super().__init__(reason)
        self.convertible = convertible


@dataclass(frozen=True)
class Decoded:
    """A decoded image.

    Attributes:
        pixels: [H, W, 3] uint8, turned by the EXIF orientation.
        orientation: That orientation, 1 to 8.
        conversions: How the image was converted, if RGB could not show it as it was.
    """

    pixels: npt.NDArray[np.uint8]
    orientation: int
    conversions: tuple[str, ...]


@dataclass(frozen=True)
class Header:
    """What is known of an image that was checked and not kept.

    Attributes:
        size: Height and width, turned by the EXIF orientation.
        orientation, conversions: See `Decoded`.
    """

    size: tuple[int, int]
    orientation: int
    conversions: tuple[str, ...]


def decode_image(
    source: bytes | Path,
    max_pixels: int,
    size: tuple[int, int] | None = None,
    *,
    convert: bool = False,
) -> Decoded:
    """Decode an image, turned by its EXIF orientation.

    Args:
        source: The file, or its content.
        max_pixels: Largest width times height that is decoded; a small file can claim to be huge.
        size: Height and width. The largest central part with this aspect ratio is resized to it
            (bicubic, antialiased). None keeps the image as it is.
        convert: Whether to convert an image that RGB cannot show as it is.

    Returns:
        The image. Greyscale becomes three equal channels.

    Raises:
        BadImageError: If it cannot be read, or reading it would change its content.
    """
    with opened(source) as file, pillow_errors():
        image, head = open_checked(file, max_pixels)
        losses = _allowed(losses_in_header(image, head), convert=convert)
        orientation, bits = orientation_of(image), depth(image, head)
        image.load()
        orientation = max(orientation, orientation_of(image))
        if is_transparent(image):
            losses += _allowed([TRANSPARENT], convert=convert)
        # Pillow has turned a TIFF already.
        picture = turned(as_rgb(image, bits), 1 if image.format == "TIFF" else orientation)
        if size is not None and picture.size != size[::-1]:
            picture = ImageOps.fit(picture, size[::-1], Image.Resampling.BICUBIC)
        return Decoded(np.asarray(picture), orientation, tuple(x.conversion for x in losses))


def check_image(source: bytes | Path, max_pixels: int, *, convert: bool = False) -> Header:
    """Check an image by its header; decode it only if its end is missing or it has transparency.

    Args:
        source: The file, or its content.
        max_pixels: See `decode_image`.
        convert: See `decode_image`.

    Raises:
        BadImageError: If it cannot be used.
    """
    with opened(source) as file, pillow_errors():
        image, head = open_checked(file, max_pixels)
        losses = _allowed(losses_in_header(image, head), convert=convert)
        if _has_end(file, image.format) and not may_be_transparent(image):
            orientation = orientation_in_header(image, file)
            conversions = tuple(loss.conversion for loss in losses)
            return Header(turned_size(image, orientation), orientation, conversions)
    decoded = decode_image(source, max_pixels, convert=convert)
    height, width = decoded.pixels.shape[:2]
    return Header((height, width), decoded.orientation, decoded.conversions)


def _allowed(losses: list[Loss], *, convert: bool) -> list[Loss]:
    """Return the losses, or raise `BadImageError` for the first that rejects the image."""
    for loss in losses:
        if not (convert and loss.conversion):
            raise BadImageError(loss.reason, convertible=bool(loss.conversion))
    return losses


def opened(source: bytes | Path) -> BinaryIO:
    """Open a file, or its content.

    Raises:
        BadImageError: If it cannot be opened.
    """
    if isinstance(source, bytes):
        return io.BytesIO(source)
    try:
        return source.open("rb")
    except (OSError, ValueError) as error:
        raise BadImageError(_reason(error)) from error


@contextmanager
def pillow_errors() -> Iterator[None]:
    """Turn any error of Pillow into a `BadImageError`; its readers raise anything."""
    try:
        yield
    except BadImageError:
        raise
    except Exception as error:
        raise BadImageError(_reason(error)) from error


def open_checked(file: BinaryIO, max_pixels: int) -> tuple[Image.Image, bytes]:
    """Open an image of a known format and check its size; its pixels are not decoded.

    Returns:
        The image, and the first bytes of the file.

    Raises:
        BadImageError: If the format is unknown or the size is not allowed.
    """
    head = file.read(HEAD)
    if not head:
        msg = "is empty (0 bytes)"
        raise BadImageError(msg)
    try:
        image = Image.open(file, formats=_FORMATS)
    except UnidentifiedImageError as error:
        raise BadImageError(_unknown_format(head)) from error
    except Image.DecompressionBombError as error:
        msg = f"is too large: {error}"
        raise BadImageError(msg) from error
    width, height = image.size
    if width * height > max_pixels:
        msg = f"is {width} x {height} pixels, more than data.max_pixels={max_pixels} in all"
    elif min(width, height) < _SHORTEST_SIDE:
        msg = f"is {width} x {height} pixels: too small to show anything"
    else:
        return image, head
    raise BadImageError(msg)


def _unknown_format(head: bytes) -> str:
    brand = head[_BRAND_AT : _BRAND_AT + 4] if head[4:_BRAND_AT] == b"ftyp" else b""
    name = _HEIF_BRANDS.get(brand) or next(
        (name for start, name in _OTHER_FORMATS.items() if head.startswith(start)), None
    )
    other = other_format(head)
    if name is None and other:
        return f"is {other}"
    if name is None:
        return f"is not a readable image: it begins with {head[:8]!r}"
    return f"is a {name} file, for which Thaw has no decoder; save it as PNG or JPEG"


def _has_end(file: BinaryIO, kind: str | None) -> bool:
    """Return whether a file ends as its format requires.

    False for formats without a known end; such files are decoded to check them.
    """
    file.seek(0)
    head = file.read(_TAIL)
    length = file.seek(0, io.SEEK_END)
    file.seek(max(0, length - _TAIL))
    tail = file.read()
    if kind in ("JPEG", "MPO"):
        return tail.endswith(b"\xff\xd9")
    if kind == "PNG":
        return tail[4:8] == b"IEND"
    return kind == "WEBP" and int.from_bytes(head[4:8], "little") + 8 <= length


def _reason(error: Exception) -> str:
    text = brief(error)
    if "truncated" in text.lower() or isinstance(error, EOFError):
        return "is truncated: the file ends before the picture does"
    return f"cannot be read: {text}"
