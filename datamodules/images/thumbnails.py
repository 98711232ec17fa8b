"""Small pictures of images, for the tables of reports and dashboards."""

import io

from PIL import Image
from torch import Tensor

_LONGER_SIDE = 96  # in pixels


def thumbnail(pixels: Tensor) -> bytes:
    """Return a PNG file of an image, with sides of at most 96 pixels.

    Args:
        pixels: [3, H, W] uint8.
    """
    picture = Image.fromarray(pixels.permute(1, 2, 0).numpy())
    picture.thumbnail((_LONGER_SIDE, _LONGER_SIDE))
    buffer = io.BytesIO()
    picture.save(buffer, "PNG", optimize=True)
    return buffer.getvalue()
