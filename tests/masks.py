"""Small pairs of an image and its mask, as files on disk."""

import struct
import zlib
from pathlib import Path

import numpy as np
from PIL import Image

from tests.images import encoded

NAMES = ["wall", "floor", "door", "lamp", "chair", "table", "plant", "book", "cup", "cat", "dog"]
COLOURS = [(20 * k + 10, 250 - 20 * k, (67 * k) % 256) for k in range(len(NAMES))]


def class_list(
    path: Path, *, zero_is_unlabelled: bool = False, ignore_value: int | None = 255
) -> Path:
    """A YAML file with eleven classes."""
    lines = [
        f"zero_is_unlabelled: {str(zero_is_unlabelled).lower()}",
        f"ignore_value: {'null' if ignore_value is None else ignore_value}",
        "classes:",
    ]
    lines += [
        f"  - {{name: {name}, colour: {list(colour)}}}"
        for name, colour in zip(NAMES, COLOURS, strict=True)
    ]
    path.write_text("\n".join(lines) + "\n")
    return path


def mask(seed: int, size: tuple[int, int] = (40, 32), classes: int = len(NAMES)) -> np.ndarray:
    """A mask [H, W] of random rectangles; `size` is width by height."""
    rng = np.random.default_rng(seed)
    labels = np.full((size[1], size[0]), rng.integers(classes), np.uint8)
    for _ in range(4):
        top, left = rng.integers(0, size[1] - 8), rng.integers(0, size[0] - 8)
        labels[top : top + 12, left : left + 14] = rng.integers(classes)
    return labels


def image_of(labels: np.ndarray, seed: int = 0, noise: float = 6.0) -> np.ndarray:
    """The image [H, W, 3] of a mask, in the colours of its classes, with noise."""
    table = np.zeros((256, 3))
    table[: len(COLOURS)] = COLOURS
    return (
        (table[labels] + np.random.default_rng(seed).normal(0, noise, (*labels.shape, 3)))
        .clip(0, 255)
        .astype(np.uint8)
    )


def segmentation_folder(
    root: Path, counts: dict[str, int], *, shift: int = 0, size: tuple[int, int] = (40, 32)
) -> Path:
    """`<root>/{images,annotations}/<split>/<n>`; a mask's values are its classes plus `shift`."""
    for place, (split, count) in enumerate(counts.items()):
        for i in range(count):
            write_pair(root, split, f"{i:03}", mask(100 * place + i, size), shift=shift)
    return root


def write_pair(root: Path, split: str, name: str, labels: np.ndarray, *, shift: int = 0) -> None:
    """Write an image as JPEG and its mask as PNG."""
    for folder in ("images", "annotations"):
        (root / folder / split).mkdir(parents=True, exist_ok=True)
    Image.fromarray(image_of(labels)).save(root / "images" / split / f"{name}.jpg", quality=95)
    Image.fromarray(labels + np.uint8(shift)).save(root / "annotations" / split / f"{name}.png")


def shallow_png(values: np.ndarray, depth: int) -> bytes:
    """A grey PNG [H, W] with 2 or 4 bits a pixel, which Pillow cannot write."""

    def chunk(kind: bytes, content: bytes) -> bytes:
        return (
            struct.pack(">I", len(content))
            + kind
            + content
            + struct.pack(">I", zlib.crc32(kind + content))
        )

    header = struct.pack(">IIBBBBB", values.shape[1], values.shape[0], depth, 0, 0, 0, 0)
    bits = np.unpackbits(values[..., None], axis=2)[..., -depth:].reshape(len(values), -1)
    rows = b"".join(b"\0" + np.packbits(row).tobytes() for row in bits)
    return (
        b"\x89PNG\r\n\x1a\n"
        + chunk(b"IHDR", header)
        + chunk(b"IDAT", zlib.compress(rows))
        + chunk(b"IEND", b"")
    )


def label_bytes(labels: np.ndarray) -> bytes:
    return encoded(Image.fromarray(labels))
