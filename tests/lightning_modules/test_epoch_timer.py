"""The timer of an epoch measures validation separately and waits for the device."""

from collections.abc import Sequence

import pytest

from lightning_modules.callbacks import epoch_timer
from lightning_modules.callbacks.epoch_timer import EpochTimer
from run_folders.run_folder import RunFolder
from tests.conftest import SAMPLE, Train


class FakeTime:
    """Replaces the module `time`; each call of its clock returns the next of the given times."""

    def __init__(self, *times: float) -> None:
        self.times: Sequence[float] = times
        self.calls = 0

    def perf_counter(self) -> float:
        self.calls += 1
        return self.times[self.calls - 1]


def test_validation_time_is_measured_separately(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(epoch_timer, "time", FakeTime(10.0, 25.0, 28.0, 31.0, 40.0))
    timer = EpochTimer()
    timer.on_train_epoch_start(None, None)  # type: ignore[arg-type]
    timer.on_validation_start(None, None)  # type: ignore[arg-type]
    timer.on_validation_end(None, None)  # type: ignore[arg-type]
    assert timer.seconds == 21.0
    assert timer.val_seconds == 3.0
    timer.on_train_epoch_start(None, None)  # type: ignore[arg-type]
    assert timer.val_seconds == 0.0


def test_the_timer_waits_for_queued_work(monkeypatch: pytest.MonkeyPatch) -> None:
    waited: list[int] = []
    clock = FakeTime(10.0, 25.0)
    monkeypatch.setattr(epoch_timer.torch.accelerator, "is_available", lambda: True)
    monkeypatch.setattr(
        epoch_timer.torch.accelerator, "synchronize", lambda: waited.append(clock.calls)
    )
    monkeypatch.setattr(epoch_timer, "time", clock)
    timer = EpochTimer()
    timer.on_train_epoch_start(None, None)  # type: ignore[arg-type]
    assert timer.seconds == 15.0
    assert waited == [0, 1]  # before each call of the clock


def test_history_has_seconds_and_samples_a_second(
    train: Train, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each epoch has 96 samples.

    It reads the clock at its start, after the first batch, at the start and end of validation, and
    twice at its end.
    """
    monkeypatch.setattr(
        epoch_timer, "time", FakeTime(10, 15, 25, 28, 33, 34, 40, 41, 42, 43, 43, 44)
    )
    rows = RunFolder(train(*SAMPLE).folder).read_history()
    names = ("seconds", "train/seconds", "train/samples_per_second")
    assert [[float(row[name]) for name in names] for row in rows] == [
        [24.0, 21.0, 4.6],
        [4.0, 3.0, 32.0],
    ]


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
