"""One image file or its bytes -> red, green and blue; what cannot be shown faithfully is refused with its reason.

A reader that converts whatever comes changes pictures silently: CMYK gets other colours, 16 bits
are cut to 8, what was transparent turns black, an animation loses all frames but one.
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
_FORMATS = ("PNG", "JPEG", "WEBP", "BMP", "GIF", "TIFF")  # a JPEG may turn out to be MPO
_SHALLOW = 8  # bits a channel
_TAIL = 12  # bytes; a PNG's last chunk
_PNG_DEPTH_AT = 24  # byte of the header that holds the bits of a channel


class BadImageError(ValueError):
    """An image cannot be used; the message is the reason alone."""


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
        max_pixels: Width times height that is still decoded; a small file can claim to be huge.
        size: Height and width; the largest part of these proportions is cut from the middle and
            resized (bicubic, antialiased). None keeps the image as it is.
        upright: Whether it is turned the way its camera held it, or left as its pixels are stored.

    Returns:
        [H, W, 3] uint8. Greyscale becomes equal channels.

    Raises:
        BadImageError: If it cannot be read, or not without a change of its content.
    """
    try:
        with _stream(source) as file:
            opened = _opened(file, max_pixels)
            image = ImageOps.exif_transpose(opened) if upright else opened
            if _transparent(image):
                msg = "is transparent in part, and what is to be seen there is not said; save it without transparency"
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
    """Check an image by its header, and decode it only where its end is missing.

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
            image = _opened(file, max_pixels)
            whole, transparent = (
                _ends(file, image.format),
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
        [H, W] uint8: the values as they are stored; of a picture with a palette, the palette's
        entries.

    Raises:
        BadImageError: If it cannot be read, or is not one channel of whole numbers.
    """
    try:
        with _stream(source) as file:
            image = _opened(file, max_pixels)
            if image.format in ("JPEG", "MPO"):
                msg = "is a JPEG, whose compression changes the values of a mask; save it as PNG"
                raise BadImageError(msg)
            if image.mode not in ("L", "P", "1"):
                msg = f"has {image.mode} colours; a mask has one channel, whose values stand for classes"
                raise BadImageError(msg)
            values = np.asarray(image).astype(np.uint8)
            file.seek(0)
            depth = _depth(image, file.read(_PNG_DEPTH_AT + 1))
            # Pillow spreads grey of two or four bits over 0..255.
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


def _opened(file: BinaryIO, max_pixels: int) -> Image.Image:
    """Open an image and refuse it by what its header says; pixels are not decoded."""
    head = file.read(_PNG_DEPTH_AT + 1)
    if not head:
        msg = "is empty (0 bytes)"
        raise BadImageError(msg)
    try:
        image = Image.open(file, formats=_FORMATS)
    except UnidentifiedImageError as error:
        msg = f"is no image that can be read: it begins with {head[:8]!r}"
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
        msg = f"holds several pictures ({_frames(image)} frames or pages, animated or not); save the one that is meant"
    elif image.mode == "CMYK":
        msg = "has CMYK colours, whose look depends on a printer; save it as RGB"
    elif image.mode.startswith(("I", "F")) or _depth(image, head) > _SHALLOW:
        msg = "has 16 bits a channel or more; save it with 8"
    elif image.mode not in _PLAIN_MODES + _ALPHA_MODES:
        msg = f"has {image.mode} colours; save it as RGB"
    else:
        return image
    raise BadImageError(msg)


def _frames(image: Image.Image) -> int:
    """Pictures in a file. In a camera's MPO the first is the photograph, the others are previews and depth."""
    return 1 if image.format == "MPO" else int(getattr(image, "n_frames", 1))


def _depth(image: Image.Image, head: bytes) -> int:
    """Bits a channel, where Pillow would cut them to 8 without a word."""
    if image.format == "PNG":
        return head[_PNG_DEPTH_AT]
    if isinstance(image, TiffImageFile):
        return int(max(image.tag_v2.get(TIFF_BITS, (_SHALLOW,))))
    return _SHALLOW


def _transparent(image: Image.Image) -> bool:
    """Whether any pixel is not wholly opaque."""
    if image.mode not in _ALPHA_MODES and "transparency" not in image.info:
        return False
    alpha = image.convert("RGBA").getchannel("A").getextrema()
    return bool(alpha[0] < 255)  # type: ignore[operator]  # noqa: PLR2004


def _ends(file: BinaryIO, kind: str | None) -> bool:
    """Whether a file has the end of its format; what is not known to have one counts as whole only after decoding."""
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
