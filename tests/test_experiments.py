"""Every experiment, shrunk: fitted, tested and reported through the real entry point, with a backbone saved on disk."""

from pathlib import Path

import pandas as pd
import pytest

from engine.run_folder import RunFolder
from tests.conftest import ROOT, Train

EXPERIMENTS = sorted(path.stem for path in (ROOT / "configs" / "experiment").glob("*.yaml"))
PAPER = {
    "bert_feature",
    "bert_finetune",
    "bert_bigru_feature",
    "bert_bigru_finetune",
    "ctbert_bigru_feature",
    "ctbert_bigru_finetune",
}
MINILM = {"minilm_feature", "minilm_finetune", "minilm_bigru_feature", "minilm_bigru_finetune"}


def test_all_ten_are_there() -> None:
    assert set(EXPERIMENTS) >= PAPER | MINILM


@pytest.mark.parametrize("name", EXPERIMENTS)
def test_experiment_runs_to_its_report(name: str, train: Train, tiny_backbone: Path, covid_dir: Path) -> None:
    ended = train(
        f"experiment={name}", f"model.backbone={tiny_backbone}", f"paths.data_dir={covid_dir}",
        "trainer.max_epochs=1", "model.hidden=8", "data.batch_size=16",
    )  # fmt: skip
    assert ended.code == 0, ended.err
    folder = RunFolder(ended.folder)
    assert folder.read_json("status.json")["state"] == "finished"
    metrics = folder.read_json("metrics.json")
    assert metrics["test"]["n"] == 27
    assert metrics["best"]["epoch"] == 0
    predictions = pd.read_parquet(folder.predictions)
    assert predictions["index"].tolist() == list(range(27))
    right = (predictions["label"] == predictions["prediction"]).mean()
    assert metrics["test"]["acc"] == pytest.approx(right)
    assert "Misclassified" in folder.report.read_text(encoding="utf-8")
    frozen = name.endswith("_feature")
    total, trainable = metrics["parameters"]["total"], metrics["parameters"]["trainable"]
    assert (trainable < total) == frozen
    assert (folder.read_history()[0]["lr/features"] == "") == frozen
    assert f"report: {folder.report}" in ended.out
