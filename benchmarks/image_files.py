"""Seconds and memory until images in files are ready to train on: Thaw against Pillow.

    python -m benchmarks.image_files [--images 100000] [--repetitions 3]

Writes PNG files of 64 x 64 pixels into a temporary folder, one folder for each of ten classes.
Thaw lists, decodes and keeps them, or only lists them (`in_memory=false`). The baselines are one
thread that decodes every file with Pillow into one array, and `torchvision.datasets.ImageFolder`,
which only lists.
"""

import argparse
import statistics
import tempfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch
from PIL import Image
from torchvision.datasets import ImageFolder

from benchmarks.measuring import alternate, setting
from benchmarks.memory import peak_memory
from benchmarks.rows import Goal, Row, Side, arguments, command, ratio_goals
from datamodules.image import ImageDataModule

_CLASSES, _SIDE = 10, 64
_TIMES = 1.5  # the most time and memory that Thaw may take, in multiples
_MILLION, _MINUTE = 1_000_000, 60


def write_images(root: Path, count: int) -> None:
    """Write `count` images for training and one a class for testing, with smooth colours."""
    rng = np.random.default_rng(0)
    for split, images in (("train", count), ("test", _CLASSES)):
        for index in range(images):
            folder = root / split / f"class{index % _CLASSES}"
            folder.mkdir(parents=True, exist_ok=True)
            coarse = Image.fromarray(rng.integers(0, 256, (8, 8, 3), dtype=np.uint8))
            fine = coarse.resize((_SIDE, _SIDE), Image.Resampling.BICUBIC)
            fine.save(folder / f"{index:07}.png", compress_level=1)


def read_with_thaw(root: Path, *, in_memory: bool) -> ImageDataModule:
    """Set up the data as a run does, with the digests of provenance.json."""
    data = ImageDataModule(
        folder=".",
        files={"train": "train", "val": None, "test": "test"},
        classes=[f"class{k}" for k in range(_CLASSES)],
        num_classes=_CLASSES,
        data_dir=str(root),
        size=_SIDE,
        in_memory=in_memory,
    )
    data.setup()
    data.describe()
    return data


def read_with_pillow(root: Path) -> npt.NDArray[np.uint8]:
    """Decode all training images in one thread."""
    files = sorted((root / "train").glob("*/*.png"))
    pixels = np.empty((len(files), _SIDE, _SIDE, 3), np.uint8)
    for place, file in enumerate(files):
        with Image.open(file) as image:
            pixels[place] = np.asarray(image.convert("RGB"))
    return pixels


def _row(
    key: str,
    work: str,
    ours: Callable[[], object],
    theirs: Callable[[], object],
    repetitions: int,
) -> Row:
    times = alternate({"Thaw": ours, "default": theirs}, repetitions)
    sides = {
        name: Side(times[name].seconds, memory=peak_memory(run, torch.device("cpu")))
        for name, run in (("Thaw", ours), ("default", theirs))
    }
    return Row(key, work, sides, (), setting("torch", "torchvision", "pillow", "numpy"))


def measure(given: argparse.Namespace) -> list[Row]:
    """Measure decoding into memory, and the start without."""
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        write_images(root, given.images)
        decoding = _row(
            "S13 memory",
            f"{given.images:,} PNG files of {_SIDE} x {_SIDE} pixels decoded and kept in memory; "
            "default: one thread of Pillow",
            lambda: read_with_thaw(root, in_memory=True),
            lambda: read_with_pillow(root),
            given.repetitions,
        )
        listing = _row(
            "S13 start",
            f"{given.images:,} PNG files listed for `in_memory=false`; "
            "default: torchvision's ImageFolder",
            lambda: read_with_thaw(root, in_memory=False),
            lambda: ImageFolder(str(root / "train")),
            given.repetitions,
        )
    pixels = 3 * _SIDE * _SIDE * given.images
    memory = (decoding.sides["Thaw"].memory or 0) / pixels
    million = statistics.median(listing.sides["Thaw"].seconds) * _MILLION / given.images
    goals = (
        *ratio_goals(decoding.sides, ("default", 1 / _TIMES, 1.0)),
        Goal("times the memory of the pixels", memory, _TIMES, less=True),
    )
    starts = (Goal("seconds for a million files", million, _MINUTE, less=True),)
    rows = ((decoding, goals), (listing, starts))
    return [Row(row.key, row.work, row.sides, goals, row.setting) for row, goals in rows]


if __name__ == "__main__":
    parser = arguments(__doc__, repetitions=3, on_gpus=False)
    parser.add_argument("--images", type=int, default=100_000, help="files (default: 100000)")
    command(parser, measure)
