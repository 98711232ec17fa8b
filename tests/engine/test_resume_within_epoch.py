"""A run that ends within an epoch and is resumed equals a run that was not interrupted."""

from dataclasses import replace
from pathlib import Path

import pandas as pd
import pytest
import torch
from lightning.pytorch.callbacks import Timer

from run_folders.kinds import KINDS
from run_folders.metrics import CLASSIFICATION
from run_folders.run_folder import RunFolder
from tests.conftest import LINEAR_SAMPLE, Ended, Train, identical

TIMES = ("seconds", "samples_per_second")
# Three batches an epoch. The schedule does not depend on the number of steps.
RUN = (*LINEAR_SAMPLE, "data.batch_size=32", "schedule=constant", "model.schedule.warmup=0", "trainer.max_epochs=3")  # fmt: skip
ENDS = {
    "max_steps": ("trainer.max_steps=4",),
    "accumulated": ("trainer.accumulate_grad_batches=2", "trainer.max_steps=3"),
    "validated within the epoch": ("+trainer.val_check_interval=2", "trainer.max_steps=4"),
    "first epoch": ("+trainer.val_check_interval=1", "trainer.max_steps=1"),
    "max_time": ("trainer.max_time={hours: 1}",),
    "max_time, validated": ("trainer.max_time={hours: 1}", "+trainer.val_check_interval=2"),
    "max_time in the first epoch": ("trainer.max_time={hours: 1}",),
}


def compared(ended: Ended) -> tuple[object, ...]:
    """What must be equal in a resumed and in an uninterrupted run."""
    assert ended.code == 0, ended.err
    folder = RunFolder(ended.folder)
    history = [
        {key: value for key, value in row.items() if not key.endswith(TIMES)}
        for row in folder.read_history()
    ]
    last, best = (
        torch.load(path, weights_only=True)
        for path in (folder.last_checkpoint, folder.best_checkpoint)
    )
    metrics = folder.read_json("metrics.json")
    tables = [pd.read_parquet(folder.predictions_of(split)).to_dict() for split in ("val", "test")]
    keys = ("epoch", "global_step", "state_dict", "optimizer_states", "lr_schedulers")
    return (
        history, [[each[key] for key in keys] for each in (last, best)], tables,
        [metrics[part] for part in ("val", "best", "test")],
    )  # fmt: skip


@pytest.mark.parametrize("end", ENDS)
def test_a_run_that_ends_within_an_epoch_is_resumed(
    end: str, train: Train, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    kept = tuple(key for key in ENDS[end] if "max_" not in key)
    whole = compared(train(*RUN, *kept, folder=tmp_path / "whole"))
    stop = 1 if "first" in end else 4

    def check(self: Timer, trainer: object) -> None:
        trainer.should_stop = trainer.should_stop or trainer.global_step >= stop

    with monkeypatch.context() as patch:
        patch.setattr(Timer, "_check_time_remaining", check)
        first = train(*RUN, *ENDS[end], folder=tmp_path / "parts")
    assert first.code == 0, first.err
    assert len(RunFolder(first.folder).read_history()) == (1 if "first" in end else 2)
    resumed = train(*RUN, *kept, "ckpt_path=last", folder=tmp_path / "parts")
    assert ("has no complete epoch" in resumed.err + resumed.out) == ("first" in end)
    for expected, found in zip(whole, compared(resumed), strict=True):
        assert identical(expected, found)


def test_a_checkpoint_from_within_an_epoch_is_refused(train: Train, tmp_path: Path) -> None:
    first = train(*RUN, "+trainer.val_check_interval=1", "trainer.max_steps=1")
    path = RunFolder(first.folder).best_checkpoint
    ended = train(*RUN, f"ckpt_path={path}", folder=tmp_path / "other")
    assert ended.code == 1
    assert f"{path} was written within epoch 0, counted from 0" in ended.error
    assert "give the last.ckpt of its run" in ended.error


def test_the_metrics_are_those_of_the_best_of_several_validations(
    train: Train, monkeypatch: pytest.MonkeyPatch
) -> None:
    # The highest loss is chosen: that of the first validation of an epoch.
    metrics = tuple(replace(metric, better="max") for metric in CLASSIFICATION)
    monkeypatch.setitem(KINDS, "classification", replace(KINDS["classification"], metrics=metrics))
    ended = train(
        *RUN,
        "+trainer.val_check_interval=2",
        "monitor=val/loss",
        "trainer.max_epochs=1",
        "data.rows={train: 320, val: 32, test: 40}",
    )
    assert ended.code == 0, ended.err
    folder = RunFolder(ended.folder)
    found, table = folder.read_json("metrics.json"), pd.read_parquet(folder.predictions_of("val"))
    best = torch.load(folder.best_checkpoint, weights_only=True)
    (score,) = (
        float(state["best_model_score"])
        for key, state in best["callbacks"].items()
        if key.startswith("FolderCheckpoint") and "val/loss" in key
    )
    assert found["val"]["acc"] == (table["label"] == table["prediction"]).mean()
    assert found["best"]["score"] == found["val"]["loss"] == pytest.approx(score)
    rows = {int(row["epoch"]): float(row["val/loss"]) for row in folder.read_history()}
    assert rows[found["best"]["epoch"]] < score
