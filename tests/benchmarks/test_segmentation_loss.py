"""The benchmark runs, and measures what it says."""

import json
import sys

import pytest
import torch

from benchmarks import segmentation_loss
from benchmarks.memory import peak_memory
from benchmarks.rows import arguments

CPU = torch.device("cpu")
needs_linux = pytest.mark.skipif(not sys.platform.startswith("linux"), reason="peak memory is read from /proc")


@needs_linux
def test_it_measures_each_size_and_side(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(segmentation_loss, "_SIZES", (((8, 8), (32, 32)), ((8, 8), (25, 34))))
    monkeypatch.setattr(torch, "compile", lambda loss, **_: loss)
    rows = segmentation_loss.measure(arguments(None, repetitions=1).parse_args(["--device", "cpu"]))
    assert [row.key for row in rows] == ["S5", "S5 25 x 34"]
    for row in rows:
        assert list(row.sides) == ["Thaw", "default", "tuned"]
        assert all(float(side.quality.split()[-1]) < 1e-6 for side in row.sides.values())
        assert [goal.less for goal in row.goals] == [False, False, True]


@needs_linux
def test_the_size_at_which_the_reference_died(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    _, (height, width) = segmentation_loss._NATIVE
    held = 4 * 2 * 150 * height * width / 2**30
    assert held == pytest.approx(8.17, abs=0.005)  # GiB, as reported
    monkeypatch.setattr(segmentation_loss, "_NATIVE", ((8, 8), (131, 127)))
    monkeypatch.setattr(sys, "argv", ["segmentation_loss", "--native"])
    segmentation_loss.main()
    assert "Thaw: peak extra memory 0.0" in capsys.readouterr().out


@needs_linux
@pytest.mark.parametrize("name", ["plain formula", "Thaw"])
def test_a_step_of_each_side(name: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    small = {
        "hidden_size": 16,
        "num_hidden_layers": 4,
        "num_attention_heads": 2,
        "intermediate_size": 16,
        "out_indices": [1, 2, 3, 4],
    }
    monkeypatch.setattr(segmentation_loss, "_BEIT", {**segmentation_loss._BEIT, **small, "patch_size": 64})
    segmentation_loss.measure_step(name, "bf16-mixed", CPU, checkpointed=True)
    found = json.loads(capsys.readouterr().out)
    assert found["seconds"] > 0
    assert found["peak"] > 0


@needs_linux
def test_peak_memory_is_that_of_what_is_held_at_once() -> None:
    mib = 2**20

    def work() -> None:
        first = torch.ones(64 * mib // 4)
        second = first + 1
        del first
        third = second + 1
        del second, third

    assert 120 * mib < peak_memory(work, CPU) < 160 * mib
