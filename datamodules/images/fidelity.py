"""Images that 8-bit RGB cannot show as they are: found, and on request converted as browsers do."""

from dataclasses import dataclass

import numpy as np
from PIL import Image
from PIL.TiffImagePlugin import BITSPERSAMPLE as TIFF_BITS
from PIL.TiffImagePlugin import TiffImageFile

_PLAIN_MODES = ("RGB", "L", "1", "P")
_ALPHA_MODES = ("RGBA", "LA", "PA", "RGBa", "La")
_DEEP_GREY = "I;16"  # Pillow's modes of 16-bit grey begin with it
_DEPTH = 8  # bits per channel
_PNG_DEPTH_AT = 24  # position of the header byte with the bits per channel
HEAD = _PNG_DEPTH_AT + 1  # bytes of a file that are read to judge it


@dataclass(frozen=True)
class Loss:
    """What an image would lose as 8-bit RGB.

    Attributes:
        reason: Why the image is rejected, with advice.
        conversion: How it is converted if that is allowed; empty if it cannot be.
    """

    reason: str
    conversion: str


TRANSPARENT = Loss(
    "is transparent in part, so its colours there are not defined; save it without transparency",
    "transparent onto white",
)


def losses_in_header(image: Image.Image, head: bytes) -> list[Loss]:
    """Return the losses of an image that was opened and not loaded; transparency is not among them.

    Args:
        image: The image.
        head: The first bytes of its file.
    """
    losses, frames, bits = [], frame_count(image), depth(image, head)
    if frames > 1:
        reason = f"has several frames or pages ({frames}); save one of them"
        losses.append(Loss(reason, "first of several frames"))
    if image.mode == "CMYK":
        reason = "has CMYK colours, which depend on a printer; save it as RGB"
        losses.append(Loss(reason, "CMYK to RGB"))
    elif image.mode.startswith(("I", "F")) or bits > _DEPTH:
        known = not image.mode.startswith(("I", "F")) or image.mode.startswith(_DEEP_GREY)
        reason = "has 16 bits a channel or more; save it with 8"
        losses.append(Loss(reason, f"{bits} bits a channel to 8" if known else ""))
    elif image.mode == "YCbCr":
        losses.append(Loss("has YCbCr colours; save it as RGB", "YCbCr to RGB"))
    elif image.mode not in _PLAIN_MODES + _ALPHA_MODES:
        losses.append(Loss(f"has {image.mode} colours; save it as RGB", ""))
    return losses


def may_be_transparent(image: Image.Image) -> bool:
    """Return whether an image has a channel or a colour for transparency."""
    return image.mode in _ALPHA_MODES or "transparency" in image.info


def is_transparent(image: Image.Image) -> bool:
    """Return whether any pixel of a loaded image is not fully opaque."""
    if not may_be_transparent(image):
        return False
    if image.mode.startswith(_DEEP_GREY):
        return bool((np.asarray(image) == image.info["transparency"]).any())
    lowest = image.convert("RGBA").getchannel("A").getextrema()[0]
    return bool(lowest < 255)  # type: ignore[operator]  # noqa: PLR2004


def as_rgb(image: Image.Image, bits: int) -> Image.Image:
    """Return a loaded image as 8-bit RGB: its first frame, on white where it is transparent.

    Args:
        image: The image.
        bits: Bits per channel in its file. Deep grey is scaled; of other deep images, Pillow reads
            the upper eight bits.
    """
    if image.mode.startswith(_DEEP_GREY):
        values = np.asarray(image).astype(np.uint32)
        highest = 2 ** max(bits, _DEPTH) - 1
        grey = (values * 255 + highest // 2) // highest
        grey[values == image.info.get("transparency", -1)] = 255
        return Image.fromarray(grey.clip(0, 255).astype(np.uint8)).convert("RGB")
    if may_be_transparent(image):
        shown = image.convert("RGBA")
        white = Image.new("RGBA", shown.size, "white")
        return Image.alpha_composite(white, shown).convert("RGB")
    return image if image.mode == "RGB" else image.convert("RGB")


def frame_count(image: Image.Image) -> int:
    """Return the number of frames or pages in a file.

    An MPO file of a camera counts as one: after the photograph come previews and depth maps.
    """
    return 1 if image.format == "MPO" else int(getattr(image, "n_frames", 1))


def depth(image: Image.Image, head: bytes) -> int:
    """Return the bits per channel in formats where Pillow would cut them to 8 silently."""
    if image.format == "PNG":
        return head[_PNG_DEPTH_AT]
    if isinstance(image, TiffImageFile):
        return int(max(image.tag_v2.get(TIFF_BITS, (_DEPTH,))))
    return _DEPTH
