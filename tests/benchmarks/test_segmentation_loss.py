"""The benchmark of the segmentation loss measures each size and side."""

import json
import re
import sys
from pathlib import Path

import pytest
import torch

from benchmarks import memory, segmentation_loss
from benchmarks.rows import arguments

CPU = torch.device("cpu")
needs_linux = pytest.mark.skipif(
    not sys.platform.startswith("linux"), reason="peak memory is read from /proc"
)


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
def test_the_size_at_which_the_reference_runs_out_of_memory(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    _, (height, width) = segmentation_loss._NATIVE
    gib = 4 * 2 * 150 * height * width / 2**30
    assert gib == pytest.approx(8.17, abs=0.005)  # as documented
    monkeypatch.setattr(segmentation_loss, "_NATIVE", ((8, 8), (131, 127)))
    monkeypatch.setattr(sys, "argv", ["segmentation_loss", "--native"])
    segmentation_loss.main()
    assert re.search(r"Thaw: peak extra memory \d", capsys.readouterr().out)


@needs_linux
@pytest.mark.parametrize("name", ["plain formula", "Thaw"])
def test_a_step_of_each_side(
    name: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    small = {
        "hidden_size": 16,
        "num_hidden_layers": 4,
        "num_attention_heads": 2,
        "intermediate_size": 16,
        "out_indices": [1, 2, 3, 4],
    }
    monkeypatch.setattr(
        segmentation_loss, "_BEIT", {**segmentation_loss._BEIT, **small, "patch_size": 64}
    )
    monkeypatch.setattr(segmentation_loss, "_CLASSES", 8)
    segmentation_loss.measure_step(name, "bf16-mixed", CPU, checkpointed=True)
    found = json.loads(capsys.readouterr().out)
    assert {"seconds", "peak"} <= found.keys()


def test_peak_memory_is_the_increase_that_the_system_reports(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """The system's files are replaced: real resident memory depends on other processes."""
    status, reset, template = (
        tmp_path / "status",
        tmp_path / "clear_refs",
        "Name:\tx\nVmHWM:\t   {} kB\nVmRSS:\t   100 kB\n",
    )
    status.write_text(template.format(500))
    monkeypatch.setattr(memory, "_STATUS", status)
    monkeypatch.setattr(memory, "_RESET", reset)

    def work() -> None:
        assert reset.read_text() == "5"  # resets the earlier peak
        status.write_text(template.format(228))

    assert memory.peak_memory(work, CPU) == 128 * 1024
