"""Image, prediction and annotation side by side, in the colours of the classes, with a legend."""

import io
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageDraw, ImageFont

Pixels = npt.NDArray[np.uint8]
Colour = tuple[int, int, int]

UNLABELLED: Colour = (0, 0, 0)
_PAPER, _INK, _SOFT = (255, 255, 255), (27, 37, 48), (91, 104, 117)
_GAP, _LINE, _SWATCH, _TEXT = 8, 20, 14, 13  # pixels
_NARROWEST = 240  # pixels of a panel, so that its legend has room


def coloured(labels: Pixels, colours: Sequence[Colour]) -> Pixels:
    """A mask in the colours of its classes.

    Args:
        labels: [H, W], 0..K-1; anything above is drawn as not labelled.
        colours: Red, green and blue of each class, 0..255.

    Returns:
        [H, W, 3].
    """
    table = np.full((256, 3), UNLABELLED, np.uint8)
    table[: len(colours)] = colours
    return np.asarray(table[labels])


def present(masks: Sequence[Pixels], num_classes: int) -> list[tuple[int, float]]:
    """The classes of some masks and each one's share of the labelled pixels, the largest first."""
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
    """Put a picture together.

    Args:
        image: [H, W, 3].
        prediction: [H, W], 0..K-1.
        annotation: [H, W], 0..K-1, or 255 where nothing is labelled; None where there is none.
        names: Of the classes.
        colours: Of the classes.
        longest: Pixels of each part's longer side; larger images are shown smaller.

    Returns:
        Input | prediction | annotation, and below a legend of the classes that occur, the most
        frequent first.
    """
    panels = [("input", image), ("prediction", coloured(prediction, colours))]
    maps = [prediction]
    if annotation is not None:
        panels.append(("annotation", coloured(annotation, colours)))
        maps.append(annotation)
    factor = max(min(1.0, longest / max(image.shape[:2])), _NARROWEST / image.shape[1])
    height, width = round(image.shape[0] * factor), round(image.shape[1] * factor)
    entries = [(names[k], colours[k], share) for k, share in present(maps, len(names))]
    if annotation is not None and bool((annotation >= len(names)).any()):
        entries.append(("not labelled", UNLABELLED, 0.0))
    font = ImageFont.load_default(_TEXT)
    full = len(panels) * width + (len(panels) + 1) * _GAP
    texts = [name if not share else f"{name} {share:.1%}" for name, _, share in entries]
    rows = _rows(
        [_SWATCH + _GAP // 2 + round(font.getlength(text)) + 2 * _GAP for text in texts],
        full - 2 * _GAP,
    )
    canvas = Image.new("RGB", (full, _LINE + height + 2 * _GAP + len(rows) * _LINE), _PAPER)
    draw = ImageDraw.Draw(canvas)
    for place, (title, pixels) in enumerate(panels):
        left = _GAP + place * (width + _GAP)
        draw.text((left, (_LINE - _TEXT) // 2), title, _INK, font)
        kind = Image.Resampling.BICUBIC if place == 0 else Image.Resampling.NEAREST
        canvas.paste(Image.fromarray(pixels).resize((width, height), kind), (left, _LINE))
    for line, row in enumerate(rows):
        top, left = _LINE + height + _GAP + line * _LINE, _GAP
        for entry, step in row:
            draw.rectangle(
                (left, top + 2, left + _SWATCH, top + 2 + _SWATCH), entries[entry][1], _SOFT
            )
            draw.text((left + _SWATCH + _GAP // 2, top + 1), texts[entry], _INK, font)
            left += step
    return canvas


def _rows(widths: Sequence[int], room: int) -> list[list[tuple[int, int]]]:
    """Entries (number, width) in lines that have room for them."""
    rows: list[list[tuple[int, int]]] = [[]]
    for number, width in enumerate(widths):
        if rows[-1] and sum(step for _, step in rows[-1]) + width > room:
            rows.append([])
        rows[-1].append((number, width))
    return rows


def encoded(picture: Image.Image, kind: str = "PNG") -> bytes:
    """A picture as a file, PNG or WEBP."""
    buffer = io.BytesIO()
    picture.save(buffer, kind, quality=85)
    return buffer.getvalue()
