"""The clock of an epoch: validation apart, and only when the device is done."""

import pytest

from engine.run_folder import RunFolder
from lightning_modules.callbacks import epoch_timer
from lightning_modules.callbacks.epoch_timer import EpochTimer
from tests.conftest import SAMPLE, Train


def test_validation_is_apart(monkeypatch: pytest.MonkeyPatch) -> None:
    ticks = iter([10.0, 25.0, 28.0, 31.0, 40.0])
    monkeypatch.setattr(epoch_timer.time, "perf_counter", lambda: next(ticks))
    timer = EpochTimer()
    timer.on_train_epoch_start(None, None)  # type: ignore[arg-type]
    timer.on_validation_start(None, None)  # type: ignore[arg-type]
    timer.on_validation_end(None, None)  # type: ignore[arg-type]
    assert timer.seconds == 21.0
    assert timer.val_seconds == 3.0
    timer.on_train_epoch_start(None, None)  # type: ignore[arg-type]
    assert timer.val_seconds == 0.0


def test_queued_work_is_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    waited: list[int] = []
    monkeypatch.setattr(epoch_timer.torch.accelerator, "is_available", lambda: True)
    monkeypatch.setattr(epoch_timer.torch.accelerator, "synchronize", lambda: waited.append(1))
    timer = EpochTimer()
    timer.on_train_epoch_start(None, None)  # type: ignore[arg-type]
    assert timer.seconds >= 0
    assert len(waited) == 2


def test_history_has_seconds_and_samples_a_second(train: Train) -> None:
    for row in RunFolder(train(*SAMPLE).folder).read_history():
        assert 0 < float(row["train/seconds"]) < float(row["seconds"])
        assert float(row["train/samples_per_second"]) == pytest.approx(96 / float(row["train/seconds"]), rel=0.05)


def test_early_stopping_ends_the_run_and_the_best_epoch_is_tested(train: Train) -> None:
    ended = train(
        *SAMPLE,
        "callbacks=early_stopping",
        "callbacks.early_stopping.patience=2",
        "trainer.max_epochs=9",
        "model.lr=0",
        "model.backbone_lr=0",
    )
    assert ended.code == 0, ended.err
    folder = RunFolder(ended.folder)
    assert [row["epoch"] for row in folder.read_history()] == ["0", "1", "2"]
    assert folder.read_json("metrics.json")["best"]["epoch"] == 0
