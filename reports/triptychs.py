"""Image, prediction and annotation side by side, in the colours of the classes, with a legend."""

import io
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageDraw, ImageFont

Pixels = npt.NDArray[np.uint8]
Colour = tuple[int, int, int]

UNLABELLED_COLOUR: Colour = (0, 0, 0)
_PAPER, _INK, _SOFT = (255, 255, 255), (27, 37, 48), (91, 104, 117)
_GAP, _LINE, _SWATCH, _TEXT = 8, 20, 14, 13  # pixels
_MIN_PANEL_WIDTH = 240  # pixels; the legend does not fit below narrower panels


def colorize(labels: Pixels, colours: Sequence[Colour]) -> Pixels:
    """Return a mask in the colours of its classes.

    Args:
        labels: [H, W], 0..K-1; higher values are drawn as not labelled.
        colours: Red, green and blue of each class, 0..255.

    Returns:
        [H, W, 3].
    """
    table = np.full((256, 3), UNLABELLED_COLOUR, np.uint8)
    table[: len(colours)] = colours
    return np.asarray(table[labels])


def present(masks: Sequence[Pixels], num_classes: int) -> list[tuple[int, float]]:
    """Return the classes in some masks with their share of the labelled pixels, largest first."""
    counts = sum(np.bincount(labels.ravel(), minlength=256)[:num_classes] for labels in masks)
    total = int(np.sum(counts))
    order = np.argsort(-np.asarray(counts), kind="stable")
    return [(int(k), float(counts[k] / total)) for k in order if counts[k]]  # type: ignore[index]


def triptych(
    image: Pixels,
    prediction: Pixels,
    annotation: Pixels | None,
    names: Sequence[str],
    colours: Sequence[Colour],
    longest: int = 1024,
) -> Image.Image:
    """Draw image, prediction and annotation side by side, with a legend below.

    Args:
        image: [H, W, 3].
        prediction: [H, W], 0..K-1.
        annotation: [H, W], 0..K-1, or 255 where nothing is labelled; None if there is none.
        names: [K] class names.
        colours: [K] class colours.
        longest: Pixels of each panel's longer side; larger images are scaled down. Narrow images
            are scaled up so that the legend fits.

    Returns:
        Input | prediction | annotation. The legend lists the classes that occur, the most frequent
        first.
    """
    panels = [("input", image), ("prediction", colorize(prediction, colours))]
    masks = [prediction]
    if annotation is not None:
        panels.append(("annotation", colorize(annotation, colours)))
        masks.append(annotation)
    factor = max(min(1.0, longest / max(image.shape[:2])), _MIN_PANEL_WIDTH / image.shape[1])
    height, width = round(image.shape[0] * factor), round(image.shape[1] * factor)
    entries = [(names[k], colours[k], share) for k, share in present(masks, len(names))]
    if annotation is not None and bool((annotation >= len(names)).any()):
        entries.append(("not labelled", UNLABELLED_COLOUR, 0.0))
    font = ImageFont.load_default(_TEXT)
    full = len(panels) * width + (len(panels) + 1) * _GAP
    texts = [name if not share else f"{name} {share:.1%}" for name, _, share in entries]
    rows = _wrapped(
        [_SWATCH + _GAP // 2 + round(font.getlength(text)) + 2 * _GAP for text in texts],
        full - 2 * _GAP,
    )
    canvas = Image.new("RGB", (full, _LINE + height + 2 * _GAP + len(rows) * _LINE), _PAPER)
    draw = ImageDraw.Draw(canvas)
    for number, (title, pixels) in enumerate(panels):
        left = _GAP + number * (width + _GAP)
        draw.text((left, (_LINE - _TEXT) // 2), title, _INK, font)
        kind = Image.Resampling.BICUBIC if number == 0 else Image.Resampling.NEAREST
        canvas.paste(Image.fromarray(pixels).resize((width, height), kind), (left, _LINE))
    for number, row in enumerate(rows):
        top, left = _LINE + height + _GAP + number * _LINE, _GAP
        for entry, entry_width in row:
            draw.rectangle(
                (left, top + 2, left + _SWATCH, top + 2 + _SWATCH), entries[entry][1], _SOFT
            )
            draw.text((left + _SWATCH + _GAP // 2, top + 1), texts[entry], _INK, font)
            left += entry_width
    return canvas


def _wrapped(widths: Sequence[int], available: int) -> list[list[tuple[int, int]]]:
    """Break the legend into rows of (entry, width) that fit the available width in pixels."""
    rows: list[list[tuple[int, int]]] = [[]]
    for entry, width in enumerate(widths):
        if rows[-1] and sum(used for _, used in rows[-1]) + width > available:
            rows.append([])
        rows[-1].append((entry, width))
    return rows


def encoded(picture: Image.Image, kind: str = "PNG") -> bytes:
    """Return a picture as the content of a file, PNG or WEBP."""
    buffer = io.BytesIO()
    picture.save(buffer, kind, quality=85)
    return buffer.getvalue()
