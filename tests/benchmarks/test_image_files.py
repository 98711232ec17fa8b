"""The benchmark runs, and both sides read the same images."""

import argparse
from pathlib import Path

import numpy as np

from benchmarks import image_files


def test_it_measures_memory_and_start() -> None:
    given = argparse.Namespace(images=40, repetitions=2)
    rows = image_files.measure(given)
    assert [row.key for row in rows] == ["S13 memory", "S13 start"]
    assert [goal.what for row in rows for goal in row.goals] == [
        "times the default",
        "times the memory of the pixels",
        "seconds for a million files",
    ]
    assert [list(row.sides) for row in rows] == [["Thaw", "default"]] * 2


def test_both_sides_read_the_same_pixels(tmp_path: Path) -> None:
    image_files.write_images(tmp_path, 40)
    ours = image_files.read_with_thaw(tmp_path, in_memory=True)
    theirs = image_files.read_with_pillow(tmp_path)
    for name in ("train", "val"):
        split = ours.splits[name]
        for position, row in enumerate(split.indices):
            pixels = split.pixels(position).permute(1, 2, 0).numpy()
            assert np.array_equal(pixels, theirs[row])
