"""The benchmark of imports compares Thaw with the libraries that it is built on."""

import pytest

from benchmarks import imports
from benchmarks.rows import arguments


def test_a_row_has_both_sides(monkeypatch: pytest.MonkeyPatch) -> None:
    programs = []
    monkeypatch.setattr(imports, "_run", programs.append)
    (row,) = imports.measure(arguments(None, repetitions=1, on_gpus=False).parse_args([]))
    assert row.key == "S11"
    assert list(row.sides) == ["Thaw", "default"]
    assert set(programs) == {"", "import engine.run", "import torch, lightning"}
    assert (
        row.goals[0].value == row.sides["Thaw"].timing.median / row.sides["default"].timing.median
    )


def test_a_program_that_fails_is_not_measured() -> None:
    with pytest.raises(Exception, match="non-zero exit status"):
        imports._run("raise SystemExit(3)")
