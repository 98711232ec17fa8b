"""Rows of the speed table: values computed from measurements, and the page that shows them."""

import itertools
from pathlib import Path

import pytest
import torch

from benchmarks import machine
from benchmarks.rows import RESULTS, Goal, Limit, Row, Side, described, ratio_goals
from benchmarks.table import load_rows, page


def row(key: str = "S2 linear") -> Row:
    sides = {
        "Thaw": Side((2.0, 1.0, 4.0), quality="accuracy 0.95", memory=2**20),
        "default": Side((5.0, 6.0, 7.0), share=0.1),
        "tuned": Side((6.0, 4.0)),
    }
    goals = (
        *ratio_goals(sides, ("default", 25, 50), ("tuned", 8, None)),
        Goal("accuracy", 0.95, 0.9),
    )
    return Row(
        key,
        "a head on stored features",
        sides,
        goals,
        "a machine",
        Limit(0.5, "1 GFLOP at 2 GFLOP/s"),
    )


def test_a_measured_share_is_extrapolated() -> None:
    assert row().sides["default"].timing.median == pytest.approx(60.0)


def test_ratios_use_the_repetitions_that_both_sides_have() -> None:
    # 50 / 2, 60 / 1 and 70 / 4; 6 / 2 and 4 / 1.
    assert [goal.value for goal in row().goals[:2]] == pytest.approx([25.0, 3.5])


def test_goals_are_compared_with_measurements() -> None:
    assert [goal.reached for goal in row().goals] == [True, False, True]
    assert not Goal("seconds", 0.6, 0.5, less=True).reached
    assert Goal("seconds", 0.5, 0.5, less=True).reached


def test_a_saved_row_is_loaded_unchanged(tmp_path: Path) -> None:
    for key in ("S10 32", "S2 linear", "S1"):
        row(key).save(tmp_path)
    rows = load_rows(tmp_path)
    assert [loaded.key for loaded in rows] == ["S1", "S2 linear", "S10 32"]
    assert rows[1] == row()


def test_the_page_reports_missed_goals() -> None:
    text = page([row()])
    assert (
        "| S2 linear | a head on stored features | 2 (150%, n 3) | 60 (33%, n 3) | 5 (40%, n 2) |"
        in text
    )
    assert "25 / **3.5**, missed / 0.95" in text
    assert "On a GPU" not in text
    assert "0.5 | 4.0 |" in text
    assert "- times the tuned: 3.5, at least 8: missed" in text
    assert "| Thaw | 2 | 150% | 3 | 1 | 1 | accuracy 0.95 |" in text
    description = described(row())
    assert "times the tuned: 3.5 (8; MISSED)" in description
    assert "measured 10.0% of it" in description


def test_the_committed_page_equals_the_page_of_the_saved_rows() -> None:
    assert (RESULTS.parent / "RESULTS.md").read_text(encoding="utf-8") == page(load_rows())


def test_peak_rates_are_operations_and_bytes_per_second(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(machine, "_SIDES", {"cpu": (8, 16)})
    monkeypatch.setattr(machine, "_COPIED", 1024)
    clock = itertools.count()
    monkeypatch.setattr(
        machine, "now", lambda: next(clock)
    )  # each product and each copy takes a second
    assert machine.operations_per_second(torch.float32) == 2 * 16**3
    assert machine.bytes_per_second() == 2 * 1024
