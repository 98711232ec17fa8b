"""The page of a comparison says how its runs differ."""

import re
from pathlib import Path
from typing import Any

import pytest
import yaml

from reports.comparison import write_comparison
from reports.differences import differing_settings, have_same_loss, short_labels
from reports.record import read_run
from reports.sweep import write_sweep_page
from run_folders.run_folder import RunFolder

pytestmark = pytest.mark.drawn

CROSS_ENTROPY = {"_target_": "losses.CrossEntropy", "label_smoothing": 0.0}
FOCAL = {"_target_": "my_package.FocalLoss", "gamma": 2.0}


def run_folder(
    path: Path, loss: dict[str, Any] = CROSS_ENTROPY, lr: float = 0.1, **more: object
) -> Path:
    """Write the folder of a finished run; its metrics follow from `lr`."""
    folder = RunFolder(path)
    path.mkdir(parents=True)
    folder.write_status("finished", "report")
    metrics = {
        "kind": "classification",
        "loss": loss["_target_"],
        "best": {},
        "parameters": {"total": 1, "trainable": 1},
        "seconds": {"fit": 1.0, "test": None, "epoch_mean": None},
    }
    stages = {"val": {"loss": 0.5 * lr, "acc": 0.5 + lr, "n": 10}}
    folder.write_json("metrics.json", metrics | stages)
    config = {
        "name": path.parent.name,
        "seed": 1,
        "ckpt_path": None,
        "plan": False,
        "paths": {"runs_dir": str(path)},
        "data": {"folder": "moods", "seed": 1},
        "model": {"loss": loss, "lr": lr},
    }
    folder.config.write_text(yaml.safe_dump(config | more))
    (path / "history.csv").write_text(
        "epoch,train/loss,val/loss,val/acc\n0,1,0.9,0.5\n1,0.9,0.8,0.6\n"
    )
    return path


def compared(tmp_path: Path, *runs: Path) -> str:
    """Return the page of a comparison."""
    return write_comparison(list(runs), tmp_path / "page.html").read_text(encoding="utf-8")


def test_settings_that_differ_are_listed_and_label_the_runs(tmp_path: Path) -> None:
    first = run_folder(tmp_path / "a" / "1", FOCAL)
    page = compared(tmp_path, first, run_folder(tmp_path / "b" / "2", lr=0.2, ckpt_path="last"))
    assert '<td class="text">loss=FocalLoss lr=0.1</td>' in re.sub(r"\n</td>", "</td>", page)
    table = page.split("Settings that differ")[1].split("</table>")[0]
    rows = re.findall(
        r"<tr><td>(.*?)</td>\n<td class=\"text\">(.*?)</td>\n<td .*?>(.*?)</td>", table
    )
    assert rows == [
        ("model.loss._target_", "my_package.FocalLoss", "losses.CrossEntropy"),
        ("model.loss.gamma", "2.0", "-"),
        ("model.loss.label_smoothing", "-", "0.0"),
        ("model.lr", "0.1", "0.2"),
    ]
    assert "a/1" in table
    assert "b/2" in table
    assert ">loss=CrossEntropy lr=0.2</text>" in page  # the legend of a plot


def test_runs_without_short_labels_keep_their_names(tmp_path: Path) -> None:
    paths = [tmp_path / "a" / "1", tmp_path / "b" / "2"]
    runs = [run_folder(paths[0], seed=1), run_folder(paths[1], seed=1)]
    page = compared(tmp_path, *runs)
    assert "Settings that differ" not in page
    assert '<td class="text">a/1</td>' in re.sub(r"\n</td>", "</td>", page)
    assert short_labels({key: ["1", "2"] for key in "abcd"}) is None
    assert short_labels({"classes": ["x" * 61, "y"]}) is None
    assert short_labels({"a.lr": ["1", "2"], "b.lr": ["3", "3"]}) == [
        "a.lr=1 b.lr=3",
        "a.lr=2 b.lr=3",
    ]


def test_a_repeated_key_and_a_run_without_config_make_no_rows(tmp_path: Path) -> None:
    data = {"folder": "moods", "seed": 2}
    runs = [
        read_run(run_folder(tmp_path / "1")),
        read_run(run_folder(tmp_path / "2", seed=2, data=data)),
        read_run(run_folder(tmp_path / "3")),
    ]
    runs[2].config.clear()
    assert differing_settings(runs) == {"data.seed": ["1", "2", "-"]}


@pytest.mark.parametrize("other", [FOCAL, {**CROSS_ENTROPY, "label_smoothing": 0.1}])
def test_different_losses_are_not_compared(other: dict[str, Any], tmp_path: Path) -> None:
    first = run_folder(tmp_path / "1")
    same = compared(tmp_path, first, run_folder(tmp_path / "2", lr=0.2))
    page = compared(tmp_path, first, run_folder(tmp_path / "3", other, lr=0.2))
    assert "(+0.1000)" in same
    assert "(+0.0500)" in same
    assert "validation loss by epoch" in same
    assert "The runs have different losses" not in same
    assert "(+0.1000)" in page  # accuracy
    assert "(+0.0500)" not in page
    assert "validation accuracy by epoch" in page
    assert "loss by epoch" not in page
    assert "The runs have different losses" in page


def test_a_loss_that_is_not_recorded_is_not_different(tmp_path: Path) -> None:
    runs = [read_run(run_folder(tmp_path / name, FOCAL)) for name in "ab"]
    runs[1].metrics.pop("loss")
    runs[1].config.clear()
    assert have_same_loss(runs)


def test_different_losses_are_not_compared_on_the_page_of_a_sweep(tmp_path: Path) -> None:
    for number, loss in enumerate((CROSS_ENTROPY, FOCAL)):
        run_folder(tmp_path / "sweep" / str(number), loss, lr=0.1 + 0.1 * number)
    page = write_sweep_page(tmp_path / "sweep").read_text(encoding="utf-8")
    assert "The runs have different losses" in page
    assert "(+0.1000)" in page
    assert "(+0.0500)" not in page
    assert "loss by epoch" not in page
