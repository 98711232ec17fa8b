"""The benchmark runs, and both sides do the same work."""

import sys

import pytest
import torch

from benchmarks import image_input


def test_it_prints_a_row_for_each_input(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr(image_input, "_IMAGES", 80)
    monkeypatch.setattr(image_input, "_REPETITIONS", 2)
    monkeypatch.setattr(sys, "argv", ["image_input"])
    image_input.main()
    out = capsys.readouterr().out
    assert "torch 2" in out
    assert "2 repetitions" in out
    assert [line.split("|")[1].strip() for line in out.splitlines() if line.startswith("| ")] == [
        "input",
        "32, not resized",
        "224",
    ]


@pytest.mark.parametrize("size", [None, 224])
def test_both_sides_give_the_same_pixels_where_nothing_is_drawn(size: int | None, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(image_input, "_IMAGES", 6)
    encoded = image_input.encoded_images(None)
    network_input = image_input.PixelInput(
        image_input._MEAN, image_input._STD, None if size is None else (size, size), "bicubic"
    )
    ours = network_input(image_input.decode(encoded).images)
    peer = image_input.Reference(encoded, size)
    peer.chain.transforms = [t for t in peer.chain.transforms if "Random" not in type(t).__name__]
    theirs = torch.stack([peer[i] for i in range(6)])
    assert ((ours - theirs).abs() * 0.5 * 255).max() <= 2 + 1e-3
    assert ((ours - theirs).abs() * 0.5 * 255 > 1 + 1e-3).float().mean() < 1e-4
