"""The EXIF orientation of an image: how a viewer turns the stored pixels before it shows them."""

import struct
from typing import BinaryIO

import numpy as np
import numpy.typing as npt
from PIL import Image
from PIL.ExifTags import Base
from PIL.TiffImagePlugin import TiffImageFile

UPRIGHT = 1
_TURNS = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
_INVERSE = {6: 8, 8: 6}  # every other turn is its own inverse
_SIDEWAYS = (5, 6, 7, 8)
_SOURCES = {"exif", "Raw profile type exif", "XML:com.adobe.xmp", "xmp"}  # keys of `Image.info`
_PNG_METADATA = (b"eXIf", b"iTXt", b"tEXt", b"zTXt")
_PNG_SIGNATURE = 8  # bytes before the first chunk of a PNG


def orientation_of(image: Image.Image) -> int:
    """Return the orientation, 1 to 8, of an image; 1 if it has none or an unknown one.

    A TIFF has to be asked before it is loaded: Pillow then turns it and removes the tag. All other
    formats have to be asked afterwards: in a PNG, the tag may follow the pixels.
    """
    if not isinstance(image, TiffImageFile) and not _SOURCES & image.info.keys():
        return UPRIGHT
    value = image.getexif().get(Base.Orientation, UPRIGHT)
    return value if value in _TURNS else UPRIGHT


def orientation_in_header(image: Image.Image, file: BinaryIO) -> int:
    """Return the orientation of an image that was opened and not loaded.

    Only a PNG with metadata after its pixels is decoded.
    """
    if image.format == "PNG" and not _SOURCES & image.info.keys() and _has_late_metadata(file):
        image.load()
    return orientation_of(image)


def _has_late_metadata(file: BinaryIO) -> bool:
    """Return whether a PNG has metadata after its pixels; moves the position in the file."""
    place = file.tell()
    file.seek(_PNG_SIGNATURE)
    pixels = found = False
    while not found and len(head := file.read(8)) == 8:  # noqa: PLR2004 - length and kind
        length, kind = struct.unpack(">I4s", head)
        pixels = pixels or kind == b"IDAT"
        found = pixels and kind in _PNG_METADATA
        file.seek(length + 4, 1)
    file.seek(place)
    return found


def turned(image: Image.Image, orientation: int) -> Image.Image:
    """Return an image as a viewer shows it, given its stored pixels."""
    return image.transpose(_TURNS[orientation]) if orientation in _TURNS else image


def turned_pixels(pixels: npt.NDArray[np.uint8], orientation: int) -> npt.NDArray[np.uint8]:
    """Return pixels [H, W] as a viewer shows them; orientations 5 to 8 exchange H and W."""
    if orientation not in _TURNS:
        return pixels
    return np.asarray(turned(Image.fromarray(pixels), orientation))


def stored_pixels(shown: npt.NDArray[np.uint8], orientation: int) -> npt.NDArray[np.uint8]:
    """Return pixels [H, W] as they are stored; the inverse of `turned_pixels`."""
    return turned_pixels(shown, _INVERSE.get(orientation, orientation))


def turned_size(image: Image.Image, orientation: int) -> tuple[int, int]:
    """Return height and width as a viewer shows an image that was opened and not loaded."""
    swapped = orientation in _SIDEWAYS and not isinstance(image, TiffImageFile)
    return (image.width, image.height) if swapped else (image.height, image.width)
