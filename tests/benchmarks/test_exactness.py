"""Any number of processes returns the metrics and predictions of one process, bit for bit."""

import json
from pathlib import Path
from typing import Any

import pytest

from benchmarks.exactness import compare
from run_folders.run_folder import RunFolder
from tests.processes import run


def rows(*arguments: str) -> list[dict[str, Any]]:
    code, out, errors = run("--json", *arguments, program="benchmarks.exactness")
    assert code == 0, errors + out
    return [json.loads(line) for line in out.splitlines()]


def exact(row: dict[str, Any], samples: int, metrics: int) -> bool:
    found = (row["n"], row["samples"], row["metrics"], row["different"], row["predictions"])
    return found == (samples, samples, metrics, [], True)


def test_texts_on_1_2_and_8_processes() -> None:
    found = rows("--processes", "1", "2", "8", "--samples", "2140", "7")
    assert [(row["processes"], row["samples"]) for row in found] == [
        (p, n) for p in (1, 2, 8) for n in (2140, 7)
    ]
    metrics = {row["samples"]: row["metrics"] for row in found if row["processes"] == 1}
    assert min(metrics.values()) > 20
    assert all(exact(row, row["samples"], metrics[row["samples"]]) for row in found), found


@pytest.mark.parametrize("task", ["images", "masks"])
def test_images_and_pairs_on_3_processes(task: str) -> None:
    found = rows("--task", task, "--processes", "3", "--samples", "41", "7")
    assert len(found) == 4
    assert all(exact(row, row["samples"], row["metrics"]) for row in found), found


def test_the_comparison_detects_a_difference_in_the_last_bit(tmp_path: Path) -> None:
    import pandas as pd

    for processes, loss in ((1, 0.1), (2, 0.1 + 2**-56)):
        folder = RunFolder(tmp_path / f"{processes}x2")
        folder.write_json(
            "metrics.json", {"n": 2, "loss": loss, "per_class": {"fake": {"f1": 0.5}}}
        )
        folder.predictions.parent.mkdir()
        pd.DataFrame({"index": [0, 1], "probability": [0.5, 0.25 * processes]}).to_parquet(
            folder.predictions
        )
    row = compare(tmp_path, 2, 2)
    assert row["different"] == ["/loss"]
    assert 0 < row["largest"] < 1e-15
    assert not row["predictions"]
