"""Decoding of one image or mask; images that RGB cannot represent faithfully are rejected.

A conversion to RGB would change such images silently:

- CMYK gets other colours;
- 16 bits per channel are cut to 8;
- transparent pixels turn black;
- an animation loses all frames but one.
"""

import io
from pathlib import Path
from typing import BinaryIO

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageOps, UnidentifiedImageError
from PIL.TiffImagePlugin import BITSPERSAMPLE as TIFF_BITS
from PIL.TiffImagePlugin import TiffImageFile

from run_folders.errors import brief

SUFFIXES = (".png", ".jpg", ".jpeg", ".webp", ".bmp", ".gif", ".tif", ".tiff")

_SHORTEST_SIDE = 2
_PLAIN_MODES = ("RGB", "L", "1", "P")
_ALPHA_MODES = ("RGBA", "LA", "PA", "RGBa", "La")
_FORMATS = ("PNG", "JPEG", "WEBP", "BMP", "GIF", "TIFF")  # Pillow opens some JPEG files as MPO
_MAX_DEPTH = 8  # bits per channel
_TAIL = 12  # bytes; length of a PNG's last chunk
_PNG_DEPTH_AT = 24  # position of the header byte with the bits per channel


class BadImageError(ValueError):
    """An image cannot be used; the message has only the reason, not the file."""


def decode_image(
    source: bytes | Path,
    max_pixels: int,
    size: tuple[int, int] | None = None,
    *,
    upright: bool = True,
) -> npt.NDArray[np.uint8]:
    """Decode an image.

    Args:
        source: The file, or its content.
        max_pixels: Largest width times height that is decoded; a small file can claim to be huge.
        size: Height and width. The largest central part with this aspect ratio is resized to it
            (bicubic, antialiased). None keeps the image as it is.
        upright: Whether to apply the EXIF orientation; otherwise pixels stay as they are stored.

    Returns:
        [H, W, 3] uint8. Greyscale becomes three equal channels.

    Raises:
        BadImageError: If it cannot be read, or reading it would change its content.
    """
    try:
        with _stream(source) as file:
            opened = _open_checked(file, max_pixels)
            image = ImageOps.exif_transpose(opened) if upright else opened
            if _transparent(image):
                msg = (
                    "is transparent in part, so its colours there are not defined; "
                    "save it without transparency"
                )
                raise BadImageError(msg)
            picture = image.convert("RGB")
    except BadImageError:
        raise
    except Exception as error:  # Pillow's readers raise anything for a damaged file
        raise BadImageError(_reason(error)) from error
    if size is not None and picture.size != size[::-1]:
        picture = ImageOps.fit(picture, size[::-1], Image.Resampling.BICUBIC)
    return np.asarray(picture)


def check_image(source: bytes | Path, max_pixels: int) -> tuple[int, int]:
    """Check an image by its header; decode it only if its end is missing or it has transparency.

    Args:
        source: The file, or its content.
        max_pixels: See `decode_image`.

    Returns:
        Height and width as stored.

    Raises:
        BadImageError: If it cannot be used.
    """
    try:
        with _stream(source) as file:
            image = _open_checked(file, max_pixels)
            whole, transparent = (
                _has_end(file, image.format),
                image.mode in _ALPHA_MODES or "transparency" in image.info,
            )
    except BadImageError:
        raise
    except Exception as error:
        raise BadImageError(_reason(error)) from error
    if transparent or not whole:
        decode_image(source, max_pixels)
    return image.height, image.width


def decode_mask(source: bytes | Path, max_pixels: int) -> npt.NDArray[np.uint8]:
    """Decode a mask.

    Args:
        source: The file, or its content.
        max_pixels: See `decode_image`.

    Returns:
        [H, W] uint8 values as stored; in an image with a palette, the indices into the palette.

    Raises:
        BadImageError: If it cannot be read, or does not have one channel of whole numbers.
    """
    try:
        with _stream(source) as file:
            image = _open_checked(file, max_pixels)
            if image.format in ("JPEG", "MPO"):
                msg = "is a JPEG, whose compression changes the values of a mask; save it as PNG"
                raise BadImageError(msg)
            if image.mode not in ("L", "P", "1"):
                msg = (
                    f"has {image.mode} colours; "
                    "a mask has one channel, whose values stand for classes; save it as PNG with "
                    "a palette or in grey"
                )
                raise BadImageError(msg)
            values = np.asarray(image).astype(np.uint8)
            file.seek(0)
            depth = _depth(image, file.read(_PNG_DEPTH_AT + 1))
            # Pillow scales grey values of two or four bits to 0..255.
            return (
                values // np.uint8(255 // (2**depth - 1))
                if image.mode == "L" and depth in (2, 4)
                else values
            )
    except BadImageError:
        raise
    except Exception as error:  # Pillow's readers raise anything for a damaged file
        raise BadImageError(_reason(error)) from error


def _stream(source: bytes | Path) -> BinaryIO:
    return io.BytesIO(source) if isinstance(source, bytes) else source.open("rb")


def _open_checked(file: BinaryIO, max_pixels: int) -> Image.Image:
    """Open an image and check its header; its pixels are not decoded."""
    head = file.read(_PNG_DEPTH_AT + 1)
    if not head:
        msg = "is empty (0 bytes)"
        raise BadImageError(msg)
    try:
        image = Image.open(file, formats=_FORMATS)
    except UnidentifiedImageError as error:
        msg = f"is not a readable image: it begins with {head[:8]!r}"
        raise BadImageError(msg) from error
    except Image.DecompressionBombError as error:
        msg = f"is too large: {error}"
        raise BadImageError(msg) from error
    width, height = image.size
    if width * height > max_pixels:
        msg = f"is {width} x {height} pixels, more than data.max_pixels={max_pixels} in all"
    elif min(width, height) < _SHORTEST_SIDE:
        msg = f"is {width} x {height} pixels: too small to show anything"
    elif _frames(image) > 1:
        msg = f"has several frames or pages ({_frames(image)}); save one of them"
    elif image.mode == "CMYK":
        msg = "has CMYK colours, which depend on a printer; save it as RGB"
    elif image.mode.startswith(("I", "F")) or _depth(image, head) > _MAX_DEPTH:
        msg = "has 16 bits a channel or more; save it with 8"
    elif image.mode not in _PLAIN_MODES + _ALPHA_MODES:
        msg = f"has {image.mode} colours; save it as RGB"
    else:
        return image
    raise BadImageError(msg)


def _frames(image: Image.Image) -> int:
    """Return the number of frames or pages in a file.

    An MPO file of a camera counts as one: after the photograph come previews and depth maps.
    """
    return 1 if image.format == "MPO" else int(getattr(image, "n_frames", 1))


def _depth(image: Image.Image, head: bytes) -> int:
    """Return the bits per channel in formats where Pillow would cut them to 8 silently."""
    if image.format == "PNG":
        return head[_PNG_DEPTH_AT]
    if isinstance(image, TiffImageFile):
        return int(max(image.tag_v2.get(TIFF_BITS, (_MAX_DEPTH,))))
    return _MAX_DEPTH


def _transparent(image: Image.Image) -> bool:
    """Return whether any pixel is not fully opaque."""
    if image.mode not in _ALPHA_MODES and "transparency" not in image.info:
        return False
    alpha = image.convert("RGBA").getchannel("A").getextrema()
    return bool(alpha[0] < 255)  # type: ignore[operator]  # noqa: PLR2004


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
