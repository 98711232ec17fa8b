"""The benchmark runs, and both sides do the same work."""

from pathlib import Path

import pytest

from benchmarks import image_input
from benchmarks.rows import arguments


def test_it_measures_each_input(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(image_input, "_IMAGES", 80)
    given = arguments(None, repetitions=2).parse_args(["--data-dir", str(tmp_path)])
    rows = image_input.measure(given)
    assert [row.key for row in rows] == ["S10 32", "S10 224"]
    assert [goal.what for goal in rows[0].goals] == ["times the default"]
    assert list(rows[1].sides) == ["Thaw", "Thaw, first epoch", "default", "tuned"]
    reasons = [row.limit.why for row in rows if row.limit is not None]
    assert reasons == ["writing 1 MiB of floats", "the resize of the bytes alone"]


@pytest.mark.parametrize("size", [None, 224])
def test_both_sides_return_the_same_pixels_without_augmentation(
    size: int | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(image_input, "_IMAGES", 6)
    most, more = image_input.difference(image_input.encoded_images(None), size)
    assert most <= 2 + 1e-3
    assert more < 1e-4
