"""Tasks and datamodules with an ordinary Lightning trainer; under the engine nothing is twice."""

import csv
from pathlib import Path
from typing import Any

import lightning
import numpy as np
import pytest
from lightning.pytorch.callbacks import ModelCheckpoint
from lightning.pytorch.loggers import CSVLogger, Logger

from datamodules.image_samples import SampleImagesDataModule
from lightning_modules.image_classifier import ImageClassifier
from lightning_modules.multilabel import MultilabelImageClassifier
from run_folders.own_packages import VARIABLE
from run_folders.run_folder import RunFolder
from tests.conftest import SAMPLE, Train

PIXELS = {"architecture": "small_resnet", "widths": [8, 8], "depth": 1}
CLASSES = [
    "disc",
    "ring",
    "triangle",
    "square",
    "cross",
    "bars",
    "checks",
    "dots",
    "waves",
    "rings",
]


def settings() -> dict[str, Any]:
    files = dict.fromkeys(("train", "val", "test"), "embedded")
    rows = {"train": 40, "val": 20, "test": 20}
    return {
        "rows": rows, "folder": "", "files": files, "classes": CLASSES, "num_classes": 10,
        "batch_size": 8,
    }  # fmt: skip


class SeveralLabels(SampleImagesDataModule):
    """The embedded images with attributes in place of the class."""

    def setup(self, stage: str | None = None) -> None:
        first = not self.splits
        super().setup(stage)
        for split in self.splits.values() if first else ():
            split.labels = [(float(k < 5), float(k % 2)) for k in split.labels]


@pytest.mark.parametrize("kind", ["classification", "multilabel"])
def test_an_ordinary_trainer_logs_the_metrics(kind: str, tmp_path: Path) -> None:
    data: Any = SampleImagesDataModule(**settings())
    task: Any = ImageClassifier(PIXELS, 10)
    if kind == "multilabel":
        data, task = SeveralLabels(**settings()), MultilabelImageClassifier(PIXELS, num_classes=2)
    headline = {"classification": "acc", "multilabel": "map"}[kind]
    best = ModelCheckpoint(tmp_path, monitor=f"val/{headline}", mode="max")
    trainer = lightning.Trainer(
        accelerator="cpu", max_epochs=2, logger=CSVLogger(tmp_path, "logs", ""), callbacks=[best],
        enable_progress_bar=False, enable_model_summary=False, log_every_n_steps=1,
    )  # fmt: skip
    trainer.fit(task, data)
    assert float(trainer.callback_metrics[f"val/{headline}"]) == pytest.approx(
        task.results["val"].metrics[headline]
    )
    assert best.best_model_score is not None
    with (tmp_path / "logs" / "metrics.csv").open() as file:
        rows = list(csv.DictReader(file))
    logged = [float(row[f"val/{headline}"]) for row in rows if row[f"val/{headline}"]]
    assert len(logged) == 2
    assert len([row for row in rows if row["train/loss"]]) == 2
    assert logged[-1] == pytest.approx(task.results["val"].metrics[headline])
    if kind == "multilabel":  # a validation after training chooses no thresholds
        task.thresholds.fill_(0.9)
        trainer.validate(task, data, verbose=False)
        assert task.results["val"].thresholds.tolist() == pytest.approx([0.9, 0.9])
    (tested,) = trainer.test(task, data, verbose=False)
    assert tested["test/loss"] == pytest.approx(task.results["test"].metrics["loss"])


class Recording(Logger):
    """A logger of an own package that records the names of the metrics of each call."""

    name, version = "recording", "0"
    calls: list[set[str]] = []  # noqa: RUF012 - read by the test

    def log_metrics(self, metrics: Any, step: int | None = None) -> None:
        self.calls.append(set(metrics))

    def log_hyperparams(self, params: Any, *_: Any, **__: Any) -> None:
        """Lightning requires it."""


def test_under_the_engine_each_metric_is_logged_once_an_epoch(
    train: Train, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(VARIABLE, "tests")
    Recording.calls.clear()
    here = "tests.lightning_modules.test_plain_lightning"
    ended = train(
        *SAMPLE, "trainer.max_epochs=2", f"+logger.own={{_target_: {here}.Recording}}", "trainer.log_every_n_steps=0",
    )  # fmt: skip
    assert ended.code == 0, ended.err
    epochs = [names for names in Recording.calls if "epoch" in names and "train/acc" in names]
    assert len(epochs) == 2
    with_accuracy = [names for names in Recording.calls if "val/acc" in names]
    assert with_accuracy == epochs
    history = RunFolder(ended.folder).read_history()
    assert np.isfinite([float(row["val/acc"]) for row in history]).all()
