"""Checkpoints share one file of frozen weights until the end of a run.

An epoch that is both best and last is written once.
"""

import weakref
from pathlib import Path
from typing import Any

import lightning
import pytest
import torch
from torch.utils.data import DataLoader

from engine.checkpoints import (
    AtomicCheckpointIO,
    CheckpointError,
    load_checkpoint,
    make_self_contained,
)
from lightning_modules.callbacks.folder_checkpoint import FolderCheckpoint
from run_folders.files import link_atomically


def checkpoint(epoch: int, frozen: float = 1.0) -> dict[str, Any]:
    state = {"backbone": torch.full((1000,), frozen), "head": torch.full((3,), float(epoch))}
    return {"epoch": epoch, "state_dict": state, "thaw": {"format": 1, "task": "T"}}


def test_frozen_weights_are_written_once(tmp_path: Path) -> None:
    io = AtomicCheckpointIO({"backbone"})
    best, last, frozen = (tmp_path / f"{name}.ckpt" for name in ("best", "last", "frozen"))
    io.save_checkpoint(checkpoint(0), best)
    written = frozen.stat().st_mtime_ns
    io.save_checkpoint(checkpoint(1), last)
    assert frozen.stat().st_mtime_ns == written
    assert frozen.stat().st_size > 4000 > best.stat().st_size
    for path, epoch in ((best, 0), (last, 1)):
        loaded = io.load_checkpoint(path)
        assert loaded["thaw"] == {"format": 1, "task": "T"}
        assert sorted(loaded["state_dict"]) == ["backbone", "head"]
        assert torch.equal(loaded["state_dict"]["backbone"], torch.ones(1000))
        assert torch.equal(loaded["state_dict"]["head"], torch.full((3,), float(epoch)))


def test_the_shared_file_is_not_a_checkpoint(tmp_path: Path) -> None:
    AtomicCheckpointIO({"backbone"}).save_checkpoint(checkpoint(0), tmp_path / "best.ckpt")
    with pytest.raises(
        CheckpointError,
        match=r"frozen\.ckpt holds frozen weights only, .*; ckpt_path takes the path of a run's best\.ckpt",
    ):
        load_checkpoint(tmp_path / "frozen.ckpt")


def test_a_resumed_run_reuses_the_shared_file(tmp_path: Path) -> None:
    AtomicCheckpointIO({"backbone"}).save_checkpoint(checkpoint(0), tmp_path / "best.ckpt")
    before = (tmp_path / "frozen.ckpt").stat().st_mtime_ns
    AtomicCheckpointIO({"backbone"}).save_checkpoint(checkpoint(1), tmp_path / "last.ckpt")
    assert (tmp_path / "frozen.ckpt").stat().st_mtime_ns == before


def test_make_self_contained_adds_the_frozen_weights(tmp_path: Path) -> None:
    io = AtomicCheckpointIO({"backbone"})
    best = tmp_path / "best.ckpt"
    io.save_checkpoint(checkpoint(0), best)
    io.save_checkpoint(checkpoint(1), tmp_path / "a_callback_of_the_users.ckpt")
    make_self_contained(io.digests)
    assert sorted(path.name for path in tmp_path.iterdir()) == [
        "a_callback_of_the_users.ckpt",
        "best.ckpt",
    ]
    assert load_checkpoint(tmp_path / "a_callback_of_the_users.ckpt")["epoch"] == 1
    alone = torch.load(best, weights_only=True)
    assert sorted(alone["state_dict"]) == ["backbone", "head"]
    assert "frozen" not in alone["thaw"]
    assert load_checkpoint(best)["epoch"] == 0


def test_make_self_contained_keeps_hard_links(tmp_path: Path) -> None:
    io = AtomicCheckpointIO({"backbone"})
    best, last = tmp_path / "best.ckpt", tmp_path / "last.ckpt"
    io.save_checkpoint(checkpoint(0), best)
    link_atomically(best, last)
    make_self_contained(io.digests)
    assert best.samefile(last)
    assert "frozen" not in torch.load(last, weights_only=True)["thaw"]
    assert torch.equal(load_checkpoint(last)["state_dict"]["backbone"], torch.ones(1000))


def test_a_damaged_shared_file_is_written_again(tmp_path: Path) -> None:
    (tmp_path / "frozen.ckpt").write_bytes(b"no archive")
    AtomicCheckpointIO({"backbone"}).save_checkpoint(checkpoint(0), tmp_path / "best.ckpt")
    assert torch.equal(
        load_checkpoint(tmp_path / "best.ckpt")["state_dict"]["backbone"], torch.ones(1000)
    )


@pytest.mark.parametrize("other", [True, False])
def test_missing_or_other_frozen_weights_are_reported(other: bool, tmp_path: Path) -> None:
    AtomicCheckpointIO({"backbone"}).save_checkpoint(checkpoint(0), tmp_path / "best.ckpt")
    if other:
        AtomicCheckpointIO({"backbone"}).save_checkpoint(
            checkpoint(0, frozen=2.0), tmp_path / "last.ckpt"
        )
    else:
        (tmp_path / "frozen.ckpt").unlink()
    with pytest.raises(CheckpointError, match="has other weights" if other else "is missing"):
        load_checkpoint(tmp_path / "best.ckpt")


def test_without_frozen_weights_there_is_no_shared_file(tmp_path: Path) -> None:
    AtomicCheckpointIO().save_checkpoint(checkpoint(0), tmp_path / "best.ckpt")
    assert [path.name for path in tmp_path.iterdir()] == ["best.ckpt"]


def test_a_failed_write_is_not_linked_to(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    io, content = AtomicCheckpointIO(), {**checkpoint(0), "global_step": 3, "loops": {}}
    with monkeypatch.context() as patch:
        patch.setattr("torch.save", lambda *_: (_ for _ in ()).throw(OSError("no space left")))
        with pytest.raises(OSError, match="no space left"):
            io.save_checkpoint(content, tmp_path / "best.ckpt")
    io.save_checkpoint(content, tmp_path / "last.ckpt")
    assert load_checkpoint(tmp_path / "last.ckpt")["epoch"] == 0


def test_a_written_checkpoint_is_not_kept_in_memory(tmp_path: Path) -> None:
    io, content = AtomicCheckpointIO(), checkpoint(0)
    head = weakref.ref(content["state_dict"]["head"])
    io.save_checkpoint(content, tmp_path / "best.ckpt")
    del content
    assert head() is None


class Scored(lightning.LightningModule):
    """A task with a weight that counts steps, and with given scores."""

    def __init__(self, scores: list[float]) -> None:
        super().__init__()
        self.scores, self.weight = scores, torch.nn.Parameter(torch.zeros(1))

    def train_dataloader(self) -> DataLoader[int]:
        return DataLoader(range(3))  # type: ignore[arg-type]

    def training_step(self, batch: torch.Tensor) -> torch.Tensor:
        return -self.weight.sum()

    def on_train_epoch_end(self) -> None:
        self.trainer.callback_metrics["val/acc"] = torch.tensor(self.scores[self.current_epoch])

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return torch.optim.SGD(self.parameters(), lr=1.0)

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        checkpoint["thaw"] = {"format": 1, "task": "Scored"}


def fit(folder: Path, task: Scored, **more: Any) -> None:
    """Train one epoch for each score."""
    best = FolderCheckpoint(
        dirpath=folder, filename="best", monitor="val/acc", mode="max", enable_version_counter=False
    )
    last = FolderCheckpoint(
        dirpath=folder, filename="last", enable_version_counter=False, save_on_train_epoch_end=True
    )
    trainer = lightning.Trainer(
        max_epochs=len(task.scores), callbacks=[best, last], plugins=[AtomicCheckpointIO()], accelerator="cpu", logger=False,
        enable_progress_bar=False, enable_model_summary=False, num_sanity_val_steps=0, **more,
    )  # fmt: skip
    trainer.fit(task)
    assert sorted(path.name for path in folder.iterdir()) == ["best.ckpt", "last.ckpt"]


@pytest.mark.parametrize("scores", [[0.1, 0.2, 0.3], [0.1, 0.3, 0.2], [0.3, 0.1, 0.2]])
def test_an_epoch_that_is_best_and_last_is_written_once(
    scores: list[float], tmp_path: Path
) -> None:
    fit(tmp_path, Scored(scores))
    best, last = (load_checkpoint(tmp_path / f"{name}.ckpt") for name in ("best", "last"))
    best_epoch = scores.index(max(scores))
    assert (best["epoch"], last["epoch"]) == (best_epoch, 2)
    assert best["state_dict"]["weight"].tolist() == [3.0 * (best_epoch + 1)]
    assert last["state_dict"]["weight"].tolist() == [9.0]
    assert (tmp_path / "best.ckpt").samefile(tmp_path / "last.ckpt") == (best_epoch == 2)


def test_without_hard_links_the_file_is_copied(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object) -> None:
        msg = "no second names here"
        raise OSError(msg)

    monkeypatch.setattr("os.link", fail)
    fit(tmp_path, Scored([0.1, 0.2]))
    assert [load_checkpoint(tmp_path / f"{name}.ckpt")["epoch"] for name in ("best", "last")] == [
        1,
        1,
    ]
    assert not (tmp_path / "best.ckpt").samefile(tmp_path / "last.ckpt")


def test_a_checkpoint_within_the_epoch_is_not_linked_to_last(tmp_path: Path) -> None:
    """best.ckpt is written at the last batch, before the epoch ends; last.ckpt at its end."""

    class Validated(Scored):
        def val_dataloader(self) -> DataLoader[int]:
            return DataLoader(range(1))  # type: ignore[arg-type]

        def validation_step(self, batch: torch.Tensor) -> None:
            self.trainer.callback_metrics["val/acc"] = torch.tensor(self.scores[self.current_epoch])

    fit(tmp_path, Validated([0.5]), val_check_interval=3)
    best, last = (load_checkpoint(tmp_path / f"{name}.ckpt") for name in ("best", "last"))
    assert (best["global_step"], last["global_step"]) == (3, 3)
    assert best["loops"] != last["loops"]
    assert not (tmp_path / "best.ckpt").samefile(tmp_path / "last.ckpt")
