"""Small images, good and bad, as files on disk."""

import io
import struct
import zlib
from pathlib import Path

import numpy as np
import pandas as pd
from PIL import Image

COLOURS = {
    "red": (200, 30, 30),
    "green": (30, 180, 40),
    "blue": (40, 50, 200),
    "white": (230, 230, 230),
    "black": (15, 15, 15),
}


def picture(colour: str, seed: int, size: tuple[int, int] = (20, 16)) -> Image.Image:
    """An image of nearly one colour, width by height."""
    noise = np.random.default_rng(seed).normal(0, 12, size=(size[1], size[0], 3))
    return Image.fromarray((np.asarray(COLOURS[colour]) + noise).clip(0, 255).astype(np.uint8))


def encoded(image: Image.Image, kind: str = "PNG", **options: object) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, kind, **options)
    return buffer.getvalue()


def image_folder(root: Path, counts: dict[str, int], size: tuple[int, int] = (20, 16)) -> Path:
    """`<root>/<split>/<colour>/<n>.<suffix>`, in png, jpg and webp."""
    for place, (split, count) in enumerate(counts.items()):
        for colour in COLOURS:
            folder = root / split / colour
            folder.mkdir(parents=True)
            for i in range(count):
                suffix = ("png", "jpg", "webp")[i % 3]
                picture(colour, 1000 * place + i, size).save(folder / f"{i}.{suffix}")
    return root


def write_parquet(path: Path, images: list[bytes], labels: list[object]) -> Path:
    """Write a table in the layout of the Hugging Face Hub."""
    path.parent.mkdir(parents=True, exist_ok=True)
    rows = [{"bytes": content, "path": None} for content in images]
    pd.DataFrame({"img": rows, "label": labels}).to_parquet(path, index=False)
    return path


def cifar_like(folder: Path, train: int, test: int) -> Path:
    """A data folder with a small dataset in the layout of CIFAR-10."""
    for place, (name, count) in enumerate({"train": train, "test": test}.items()):
        rng = np.random.default_rng(place)
        images = [
            encoded(Image.fromarray(rng.integers(0, 256, (32, 32, 3), dtype=np.uint8)))
            for _ in range(count)
        ]
        write_parquet(
            folder / "cifar10" / f"{name}.parquet", images, [i % 10 for i in range(count)]
        )
    return folder


def deep_png() -> bytes:
    """An RGB image with 16 bits a channel, which Pillow cannot write."""

    def chunk(kind: bytes, content: bytes) -> bytes:
        return (
            struct.pack(">I", len(content))
            + kind
            + content
            + struct.pack(">I", zlib.crc32(kind + content))
        )

    header = struct.pack(">IIBBBBB", 8, 8, 16, 2, 0, 0, 0)
    rows = b"".join(b"\0" + b"\x12\x34" * 24 for _ in range(8))
    return (
        b"\x89PNG\r\n\x1a\n"
        + chunk(b"IHDR", header)
        + chunk(b"IDAT", zlib.compress(rows))
        + chunk(b"IEND", b"")
    )


def deep_tiff() -> bytes:
    """An RGB TIFF with 16 bits a channel: little-endian, one strip, no compression."""
    pixels = b"\x40\x9c" * (8 * 8 * 3)
    entries = [(256, 3, 1, 8), (257, 3, 1, 8), (258, 3, 3, 134), (259, 3, 1, 1), (262, 3, 1, 2), (273, 4, 1, 140), (277, 3, 1, 3),
               (278, 3, 1, 8), (279, 4, 1, len(pixels)), (284, 3, 1, 1)]  # fmt: skip
    body = (
        struct.pack("<H", len(entries))
        + b"".join(struct.pack("<HHII", *entry) for entry in entries)
        + struct.pack("<I", 0)
    )
    head = struct.pack("<2sHI", b"II", 42, 8) + body
    return head + b"\0" * (134 - len(head)) + struct.pack("<3H", 16, 16, 16) + pixels


def _truncated(kind: str) -> bytes:
    content = encoded(picture("red", 1, (64, 64)), kind)
    return content[: len(content) // 2]


def _palette_with_alpha() -> bytes:
    image = picture("red", 1).quantize(8)
    return encoded(image, "PNG", transparency=0)


def _transparent() -> bytes:
    image = picture("red", 1).convert("RGBA")
    image.putpixel((3, 3), (10, 10, 10, 100))
    return encoded(image)


def _animated(kind: str) -> bytes:
    frames = [picture("red", 1), picture("blue", 2)]
    return encoded(frames[0], kind, save_all=True, append_images=frames[1:], duration=100)


# The beginning of a photo of a phone, which needs a decoder that Pillow lacks.
HEIC = b"\0\0\0\x18ftypheic\0\0\0\0mif1heic" + b"\0" * 40

# File name -> content and pattern of the error message.
BAD_IMAGES: dict[str, tuple[bytes, str]] = {
    "empty.png": (b"", r"is empty \(0 bytes\)"),
    "text.png": (
        b"not an image at all",
        r"is not a readable image: it begins with b'not an i'",
    ),
    "truncated.png": (_truncated("PNG"), r"is truncated: the file ends before the picture does"),
    "truncated.jpg": (_truncated("JPEG"), r"is truncated: the file ends before the picture does"),
    "truncated.webp": (_truncated("WEBP"), r"cannot be read|is truncated|is not a readable image"),
    "huge.png": (
        encoded(Image.new("1", (9000, 9000))),
        r"is 9000 x 9000 pixels, more than data.max_pixels=50000000 in all",
    ),
    "bomb.png": (encoded(Image.new("1", (20000, 20000))), r"is too large|is 20000 x 20000 pixels"),
    "cmyk.jpg": (encoded(picture("red", 1).convert("CMYK"), "JPEG"), r"has CMYK colours"),
    "deep_grey.png": (
        encoded(Image.fromarray(np.full((8, 8), 40000, np.uint16))),
        r"has 16 bits a channel or more",
    ),
    "deep.png": (deep_png(), r"has 16 bits a channel or more"),
    "float.tif": (
        encoded(Image.fromarray(np.ones((8, 8), np.float32)), "TIFF"),
        r"has 16 bits a channel or more",
    ),
    "palette.png": (_palette_with_alpha(), r"is transparent in part"),
    "transparent.png": (_transparent(), r"is transparent in part"),
    "animated.gif": (_animated("GIF"), r"has several frames or pages \(2\); save one"),
    "animated.webp": (_animated("WEBP"), r"has several frames or pages \(2\); save one"),
    "animated.png": (_animated("PNG"), r"has several frames or pages \(2\); save one"),
    "pages.tif": (_animated("TIFF"), r"has several frames or pages \(2\); save one"),
    "deep.tif": (deep_tiff(), r"has 16 bits a channel or more"),
    "pixmap.png": (b"P6 2 2 65535\n" + b"\x9c\x40" * 12, r"is not a readable image"),
    "dot.png": (encoded(Image.new("RGB", (1, 1))), r"is 1 x 1 pixels: too small to show anything"),
    "line.png": (
        encoded(Image.new("RGB", (40, 1))),
        r"is 40 x 1 pixels: too small to show anything",
    ),
    "notes.txt": (b"hello", r"is not a readable image: it begins with b'hello'"),
}
