"""The eight EXIF orientations, turned by hand."""

import io
import struct
import zlib
from collections.abc import Callable

import numpy as np
from PIL import Image

ORIENTATION = 0x0112
# EXIF orientation -> what a viewer shows of the stored pixels [H, W, ...].
SHOWN: dict[int, Callable[[np.ndarray], np.ndarray]] = {
    1: lambda a: a,
    2: lambda a: a[:, ::-1],
    3: lambda a: a[::-1, ::-1],
    4: lambda a: a[::-1],
    5: lambda a: a.swapaxes(0, 1),
    6: lambda a: np.rot90(a, -1),
    7: lambda a: a[::-1, ::-1].swapaxes(0, 1),
    8: lambda a: np.rot90(a),
}
_INVERSE = {6: 8, 8: 6}


def stored(shown: np.ndarray, orientation: int) -> np.ndarray:
    """The pixels that a file with this orientation stores, so that viewers show these."""
    return np.ascontiguousarray(SHOWN[_INVERSE.get(orientation, orientation)](shown))


def tagged(pixels: np.ndarray, orientation: int, kind: str = "PNG") -> bytes:
    """A file with these stored pixels and this EXIF orientation."""
    exif = Image.Exif()
    exif[ORIENTATION] = orientation
    buffer = io.BytesIO()
    options = {"lossless": True} if kind == "WEBP" else {"quality": 95} if kind == "JPEG" else {}
    Image.fromarray(pixels).save(buffer, kind, exif=exif, **options)
    return buffer.getvalue()


def tagged_late(pixels: np.ndarray, orientation: int) -> bytes:
    """A PNG whose EXIF data follow the pixels, as the standard allows."""
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, "PNG")
    plain = buffer.getvalue()
    exif = b"II*\0\x08\0\0\0" + struct.pack("<HHHIII", 1, ORIENTATION, 3, 1, orientation, 0)
    body = b"eXIf" + exif
    chunk = struct.pack(">I", len(exif)) + body + struct.pack(">I", zlib.crc32(body))
    return plain[:-12] + chunk + plain[-12:]
