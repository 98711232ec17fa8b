"""How runs end: the recorded status, the files that are kept, and the exit code."""

import signal
from pathlib import Path

import pytest
import torch

from lightning_modules.text_classifier import TextClassifier
from run_folders.run_folder import RunFolder
from tests.conftest import SAMPLE, Train
from tests.processes import ended, start, wait_for


@pytest.mark.parametrize(("signum", "code"), [(signal.SIGTERM, 143), (signal.SIGINT, 130)])
def test_signal_is_recorded_and_exits_with_its_code(
    signum: signal.Signals, code: int, tmp_path: Path
) -> None:
    folder = RunFolder(tmp_path / "run")
    overrides = [
        *SAMPLE,
        "trainer.max_epochs=1000",
        f"hydra.run.dir={folder.path}",
        "logger=tensorboard",
    ]
    process = start(*overrides, cwd=tmp_path)
    wait_for(lambda: len(folder.read_history()) >= 2, process)
    process.send_signal(signum)
    _, _, errors = ended(process)
    assert process.returncode == code, errors
    status = folder.read_json("status.json")
    assert status["state"] == "interrupted"
    assert status["stage"] == "fit"
    assert signum.name in status["error"]
    assert "Traceback" not in errors
    assert "ckpt_path=last" in errors
    assert len(folder.read_history()) >= 2
    assert folder.last_checkpoint.is_file()
    assert not list(folder.path.rglob("*.part"))
    (events,) = (folder.path / "tensorboard").glob("events.*")
    assert b"val/acc" in events.read_bytes()


def test_real_nan_weights_fail_the_run_with_advice(
    train: Train, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """A NaN weight leads to NaN logits and probabilities, which must not raise another error."""
    start = TextClassifier.on_train_epoch_start

    def break_weights(self: TextClassifier) -> None:
        start(self)
        if self.current_epoch == 1:
            self.network.head.output.bias.data.fill_(float("nan"))

    monkeypatch.setattr(TextClassifier, "on_train_epoch_start", break_weights)
    for overrides in ((), ("data.num_classes=3", "data.classes=[fake,real,unsure]")):
        ended = train(*SAMPLE, *overrides, folder=tmp_path / f"run{len(overrides)}")
        assert ended.code == 1
        assert "the training loss is nan in epoch 1, batch 0" in ended.error
        assert "Traceback" not in ended.err
        assert RunFolder(ended.folder).read_json("status.json")["state"] == "failed"


def poison(monkeypatch: pytest.MonkeyPatch, stage: str, value: float, after: int) -> None:
    """Replace the loss of a stage with `value` after its first `after` batches."""
    name = {"train": "training_step", "val": "validation_step"}[stage]
    real, calls = getattr(TextClassifier, name), [0]

    def step(self: TextClassifier, batch: object, batch_idx: int) -> torch.Tensor:
        loss: torch.Tensor = real(self, batch, batch_idx)
        calls[0] += 1
        if calls[0] > after:
            self._totals(stage).losses.append(torch.tensor([value], dtype=torch.float64))
            return loss * value
        return loss

    monkeypatch.setattr(TextClassifier, name, step)


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_a_non_finite_training_loss_fails_the_run(
    value: float, train: Train, monkeypatch: pytest.MonkeyPatch
) -> None:
    poison(monkeypatch, "train", value, after=4)  # the second epoch's second batch
    ended = train(*SAMPLE)
    assert ended.code == 1
    assert f"the training loss is {value} in epoch 1, batch 1 (index " in ended.error
    assert "model.lr" in ended.error
    folder = RunFolder(ended.folder)
    assert folder.read_json("status.json")["state"] == "failed"
    assert str(value) in folder.read_json("status.json")["error"]
    assert len(folder.read_history()) == 1
    assert torch.load(folder.last_checkpoint, weights_only=True)["epoch"] == 0
    assert not (ended.folder / "metrics.json").exists()


def test_a_nan_validation_loss_fails_the_run_before_a_checkpoint(
    train: Train, monkeypatch: pytest.MonkeyPatch
) -> None:
    poison(monkeypatch, "val", float("nan"), after=0)
    ended = train(*SAMPLE)
    assert ended.code == 1
    assert "the val loss of epoch 0 is nan" in ended.error
    assert "model.lr" in ended.error
    assert not (ended.folder / "checkpoints").exists()


def test_exception_keeps_the_results_and_closes_the_loggers(
    train: Train, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(self: TextClassifier) -> None:
        raise RuntimeError("disk on fire")

    monkeypatch.setattr(TextClassifier, "on_test_epoch_start", fail)
    ended = train(*SAMPLE, "logger=tensorboard")
    assert ended.code == 1
    assert "RuntimeError: disk on fire" in ended.error
    assert "disk on fire" in (ended.folder / "train.log").read_text()
    assert "Traceback" in (ended.folder / "train.log").read_text()
    assert "Traceback" in ended.err  # an unexpected error shows its traceback
    folder = RunFolder(ended.folder)
    status = folder.read_json("status.json")
    assert (status["state"], status["stage"], status["error"]) == (
        "failed",
        "test",
        "RuntimeError: disk on fire",
    )
    assert len(folder.read_history()) == 2
    assert folder.best_checkpoint.is_file()
    assert "disk on fire" in _report_of(folder)
    assert len(list((ended.folder / "tensorboard").glob("events.*"))) == 1


def _report_of(folder: RunFolder) -> str:
    from reports.page import write_report

    return write_report(folder.path).read_text(encoding="utf-8")


def test_a_fit_without_a_validation_is_reported(train: Train) -> None:
    ended = train(*SAMPLE, "+trainer.max_time={seconds: 0}")
    assert ended.code == 1
    assert "training ended before the first validation" in ended.error


def test_a_failing_report_keeps_the_metrics(train: Train, monkeypatch: pytest.MonkeyPatch) -> None:
    import engine.run

    def fail(path: Path) -> None:
        raise OSError("no space left")

    monkeypatch.setattr(engine.run, "write_report", fail)
    ended = train(*SAMPLE)
    assert ended.code == 1
    folder = RunFolder(ended.folder)
    assert folder.read_json("status.json")["stage"] == "report"
    assert folder.read_json("metrics.json")["test"]["n"] == 40


def test_wandb_run_is_offline_and_closed(train: Train) -> None:
    ended = train(*SAMPLE, "trainer.max_epochs=1", "logger=wandb")
    assert ended.code == 0, ended.err
    import wandb

    assert wandb.run is None
    assert list((ended.folder / "wandb").glob("offline-run-*/run-*.wandb"))
