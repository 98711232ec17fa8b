"""Metrics that cannot be computed are shown as not defined, with the reason, in every place."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch

from engine.evaluation import evaluate, evaluate_on
from lightning_modules.metrics.totals import StageResult, StageTotals, without_nan
from reports.comparison import write_comparison
from reports.kinds.base import KindPage, page_of_run
from reports.page import environment
from reports.record import RunRecord
from run_folders.kinds import metric_text
from run_folders.run_folder import RunFolder
from tests.conftest import Ended, Train, made_rows, write_csv
from tests.engine.test_multilabel_runs import COLUMNS, NAMES, TEXTS, mood_rows
from tests.engine.test_precisions import SCENES
from tests.masks import class_list, segmentation_folder, write_pair

pytestmark = pytest.mark.drawn


def shown(ended: Ended, reason: str, capsys: pytest.CaptureFixture[str], path: Path) -> RunFolder:
    """Check the console, evaluate.py, the report and the comparison of a run."""
    assert ended.code == 0, ended.err
    text = f"not defined ({reason})"
    folder = RunFolder(ended.folder)
    assert text in " ".join(ended.out.split())
    capsys.readouterr()
    assert evaluate(folder.path, None) == 0
    assert "not defined" in capsys.readouterr().out
    for page in (folder.report, write_comparison([folder.path, folder.path], path / "both.html")):
        content = page.read_text()
        assert text in " ".join(content.split()), page
        assert ">nan<" not in content.lower()
        assert ">None<" not in content
    return folder


def test_one_class_in_the_test_split(
    train: Train, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = tmp_path / "data" / "covid_fake_news"
    for name, count, labels in (("train", 32, ("fake", "real")), ("val", 12, ("fake", "real")), ("test", 9, ("real",))):  # fmt: skip
        write_csv(folder / f"{name}.csv", made_rows(count, len(name), labels))
    ended = train(
        "data=covid_fake_news", "model=sample_text_classifier", f"paths.data_dir={tmp_path / 'data'}", "data.tokenizer={vocab_size: 100}", "data.max_length=32",
        "trainer.max_epochs=1", "model.backbone.num_hidden_layers=1", "model.backbone.vocab_size=100",
    )  # fmt: skip
    run = shown(ended, "labels of one class only", capsys, tmp_path)
    assert run.read_json("metrics.json")["test"]["roc_auc"] is None
    write_csv(tmp_path / "new.csv", made_rows(5, 9, ("fake",)))
    evaluate_on(run.path, tmp_path / "new.csv")
    assert "not defined (labels of one class only)" in " ".join(capsys.readouterr().out.split())


def test_labels_without_positive_samples(
    train: Train, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = tmp_path / "data" / "moods"
    folder.mkdir(parents=True)
    for seed, (split, count) in enumerate({"train": 40, "val": 20, "test": 12}.items()):
        rows = pd.DataFrame(mood_rows(count, seed))
        if split == "test":
            rows[NAMES] = 0
        rows.to_csv(folder / f"{split}.csv", index=False)
    ended = train(*TEXTS, COLUMNS, f"paths.data_dir={tmp_path / 'data'}", "trainer.max_epochs=1")
    run = shown(ended, "no sample has a label", capsys, tmp_path)
    assert run.read_json("metrics.json")["test"]["map"] is None
    assert "not defined (no sample has it)" in run.report.read_text()


def test_classes_that_never_occur_are_named(train: Train, tmp_path: Path) -> None:
    root = segmentation_folder(tmp_path / "data" / "rooms", {"train": 8, "val": 3})
    for i in range(3):
        write_pair(root, "test", f"{i:03}", np.zeros((32, 40), np.uint8))  # the first class only
    class_list(tmp_path / "rooms.yaml")
    data = f"paths.data_dir={tmp_path / 'data'}"
    ended = train(*SCENES, f"data.class_list={tmp_path / 'rooms.yaml'}", data)
    assert ended.code == 0, ended.err
    run = RunFolder(ended.folder)
    test, page = run.read_json("metrics.json")["test"], run.report.read_text()
    assert test["absent"]
    assert "left out of the mean" in " ".join(page.split())
    only_predicted = [m for m in test["per_class"].values() if m["iou"] == 0 and m["acc"] is None]
    assert page.count("not defined (no labelled pixel)") == len(only_predicted)
    assert ">nan<" not in page.lower()
    assert evaluate(run.path, None) == 0


@dataclass(frozen=True)
class _Result(StageResult):
    more: int = 3


def test_nan_of_an_own_kind_is_not_defined() -> None:
    class Totals(StageTotals):
        def update(self) -> None:
            pass

        def result(self) -> _Result:
            return _Result({"r2": float("nan"), "mae": 1.0, "rmse": float("inf")}, 4)

    found = Totals().global_result()
    assert found == without_nan(found) == _Result({"r2": None, "mae": 1.0, "rmse": None}, 4, 3)
    assert metric_text(float("nan"), "r2") == metric_text(None, "r2") == "not defined"
    assert torch.isfinite(torch.tensor(found.metrics["mae"]))


def test_an_absent_metric_is_a_dash() -> None:
    template = environment().from_string("{{ x.map | metric('map') }} {{ x.acc | metric('acc') }}")
    assert template.render(x={"map": None}) == "not defined (no sample has a label) -"


def test_the_test_part_of_a_run_without_a_test_is_not_checked(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Page(KindPage):
        def test_fault(self, test: dict[str, Any]) -> str:
            return str(test["n"])

    monkeypatch.setattr("reports.kinds.base.page_of", lambda _: Page())
    run = RunRecord(tmp_path, {}, {}, {}, {}, {}, pd.DataFrame())
    assert isinstance(page_of_run(run), Page)
