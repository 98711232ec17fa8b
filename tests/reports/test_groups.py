"""Runs that differ only by seed are grouped and summarized in one row."""

import re
import shutil
import statistics
from pathlib import Path

import pytest
import yaml
from scipy import stats

from reports.comparison import write_comparison
from reports.groups import group_by_seed, summarize
from reports.record import read_run
from run_folders.run_folder import RunFolder
from tests.conftest import SAMPLE, Train

pytestmark = pytest.mark.drawn


def test_interval_of_a_mean_equals_scipys() -> None:
    values = [0.91, 0.93, 0.92, 0.95, 0.9]
    summary = summarize(values)
    low, high = stats.t.interval(0.95, 4, loc=statistics.fmean(values), scale=stats.sem(values))
    assert summary.mean == pytest.approx(0.922)
    assert summary.deviation == pytest.approx(statistics.stdev(values))
    assert summary.interval == pytest.approx((low, high))
    single = summarize([0.5])
    assert (single.mean, single.deviation, single.interval) == (0.5, None, None)


@pytest.fixture
def runs(train: Train, tmp_path: Path) -> list[Path]:
    """Five runs: three seeds, the second of them again, and one with another learning rate."""
    first = train(*SAMPLE, "trainer.max_epochs=1", folder=tmp_path / "seed1").folder
    folders = [first]
    for name, seed, acc, lr in (
        ("seed2", 2, 0.6, None),
        ("seed3", 3, 0.8, None),
        ("again", 2, 0.6, None),
        ("other", 4, 0.9, 0.5),
    ):
        folder = RunFolder(Path(shutil.copytree(first, tmp_path / name)))
        config = yaml.safe_load(folder.config.read_text())
        config["seed"] = config["data"]["seed"] = seed
        config["paths"]["runs_dir"] = config["cache"]["dir"] = str(tmp_path / name)
        config["model"]["lr"] = lr or config["model"]["lr"]
        folder.config.write_text(yaml.safe_dump(config))
        folder.write_json("provenance.json", {**folder.read_json("provenance.json"), "seed": seed})
        metrics = folder.read_json("metrics.json")
        metrics["test"]["acc"] = acc
        folder.write_json("metrics.json", metrics)
        folders.append(folder.path)
    return folders


def test_only_runs_that_differ_only_by_seed_share_a_row(runs: list[Path], tmp_path: Path) -> None:
    records = [read_run(path) for path in runs]
    groups = group_by_seed(records, [path.name for path in runs])
    assert [group.names for group in groups] == [["seed1", "seed2", "seed3"], ["again"], ["other"]]
    assert groups[0].seeds == [1, 2, 3]
    accs = [records[0].test["acc"], 0.6, 0.8]
    summary = groups[0].summary("test", "acc")
    assert summary is not None
    assert summary.mean == pytest.approx(statistics.fmean(accs))
    page = write_comparison(runs, tmp_path / "page.html").read_text(encoding="utf-8")
    assert "and 2 more seeds" in page
    assert "seeds 1, 2, 3" in page
    assert f"{summary.mean:.4f} ± {summary.deviation:.4f}" in page
    assert summary.interval
    assert f"{summary.interval[0]:.4f} to {summary.interval[1]:.4f}" in page
    assert f"({0.9 - summary.mean:+.4f})" in page
    body = page.split("<h2>Metrics</h2>")[1].split("<tbody>")[1].split("</tbody>")[0]
    assert body.count("<tr>") == 3
    assert re.search(r"Each run</summary>", page)


def test_an_unfinished_run_is_a_group_of_its_own(runs: list[Path]) -> None:
    RunFolder(runs[1]).write_status("failed", "fit", "broken")
    groups = group_by_seed([read_run(path) for path in runs[:3]], ["a", "b", "c"])
    assert [group.names for group in groups] == [["a", "c"], ["b"]]
