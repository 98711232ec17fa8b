"""Decoding of masks, and of images together with their masks, turned by EXIF tags alike."""

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
import numpy.typing as npt

from datamodules.images.decoding import (
    BadImageError,
    Decoded,
    check_image,
    decode_image,
    open_checked,
    opened,
    pillow_errors,
)
from datamodules.images.fidelity import depth, losses_in_header
from datamodules.images.orientation import (
    UPRIGHT,
    orientation_of,
    stored_pixels,
    turned_pixels,
)

Pixels = npt.NDArray[np.uint8]
MaskOrientation = Literal["shown", "stored"]


class BadMaskError(BadImageError):
    """The mask of a pair cannot be used; a `BadImageError` of another class is the image's."""


@dataclass(frozen=True)
class PairDecoding:
    """Settings for decoding images with their masks.

    Attributes:
        max_pixels: Largest width times height that is decoded.
        convert: Whether to convert images that RGB cannot show as they are.
        mask_orientation: How masks were drawn where an image has an EXIF orientation: on the image
            as viewers show it, or on its stored pixels. None decides by the sizes and tags.
    """

    max_pixels: int
    convert: bool = False
    mask_orientation: MaskOrientation | None = None

    def decode(self, image: bytes | Path, mask: bytes | Path) -> tuple[Pixels, Pixels]:
        """Return an image [H, W, 3] as viewers show it, and the values of its mask [H, W].

        Raises:
            BadImageError: If the image cannot be used.
            BadMaskError: If the mask cannot, or does not fit the image.
        """
        decoded = self.decode_image(image)
        return decoded.pixels, self.mask_of(decoded, mask)

    def decode_image(self, image: bytes | Path) -> Decoded:
        """Return an image; raise `BadImageError` if it cannot be used."""
        return decode_image(image, self.max_pixels, convert=self.convert)

    def mask_of(self, image: Decoded, mask: bytes | Path) -> Pixels:
        """Return the values of an image's mask [H, W]; raise `BadMaskError` if it is bad."""
        height, width = image.pixels.shape[:2]
        return self._mask(mask, (height, width), image.orientation)

    def check(self, image: bytes | Path, mask: bytes | Path) -> tuple[Pixels, tuple[str, ...]]:
        """Check an image by its header; return the values of its mask, and the image's conversions.

        Raises:
            BadImageError, BadMaskError: See `decode`.
        """
        header = check_image(image, self.max_pixels, convert=self.convert)
        return self._mask(mask, header.size, header.orientation), header.conversions

    def _mask(self, mask: bytes | Path, size: tuple[int, int], orientation: int) -> Pixels:
        try:
            shown, own = decode_mask(mask, self.max_pixels)
        except BadImageError as error:
            raise BadMaskError(str(error)) from error
        values = self._aligned(shown, own, size, orientation)
        if values.shape != size:
            (h, w), (h0, w0) = values.shape, size
            reason = f"is {w} x {h} pixels, and its image is {w0} x {h0}"
            tags = f" ({_tag(own)}, and the image {_tag(orientation)})"
            upright = own == orientation == UPRIGHT
            raise BadMaskError(reason if upright else reason + tags)
        return values

    def _aligned(self, shown: Pixels, own: int, size: tuple[int, int], orientation: int) -> Pixels:
        """Return the mask in the position in which viewers show its image.

        Args:
            shown: The mask as viewers show it.
            own: EXIF orientation of the mask.
            size: Height and width of the image as viewers show it.
            orientation: EXIF orientation of the image.
        """
        if own == orientation or self.mask_orientation == "shown":
            return shown
        as_stored = turned_pixels(stored_pixels(shown, own), orientation)
        if self.mask_orientation == "stored":
            return as_stored
        fitting = [values for values in (shown, as_stored) if values.shape == size]
        if len(fitting) > 1:
            reason = (
                f"{_tag(own)}, and its image {_tag(orientation)}, so the two may be turned against "
                "each other; set data.mask_orientation to shown (masks were drawn on the images as "
                "viewers show them) or stored (on the pixels in the file)"
            )
            raise BadMaskError(reason)
        return fitting[0] if fitting else shown


def _tag(orientation: int) -> str:
    if orientation == UPRIGHT:
        return "has no EXIF orientation"
    return f"has the EXIF orientation {orientation}"


def decode_mask(source: bytes | Path, max_pixels: int) -> tuple[Pixels, int]:
    """Decode a mask, turned by its own EXIF orientation.

    Args:
        source: The file, or its content.
        max_pixels: Largest width times height that is decoded.

    Returns:
        [H, W] uint8 values as stored; in an image with a palette, the indices into the palette.
        And the EXIF orientation, 1 to 8.

    Raises:
        BadImageError: If it cannot be read, or does not have one channel of whole numbers.
    """
    with opened(source) as file, pillow_errors():
        image, head = open_checked(file, max_pixels)
        for loss in losses_in_header(image, head):
            raise BadImageError(loss.reason)
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
        orientation, bits = orientation_of(image), depth(image, head)
        image.load()
        orientation = max(orientation, orientation_of(image))
        values = np.asarray(image).astype(np.uint8)
        if image.mode == "L" and bits in (2, 4):  # Pillow scales such values to 0..255
            values //= np.uint8(255 // (2**bits - 1))
        # Pillow has turned a TIFF already.
        return turned_pixels(values, 1 if image.format == "TIFF" else orientation), orientation
