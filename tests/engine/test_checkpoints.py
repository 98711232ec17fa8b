"""What is frozen for good is written once, and every checkpoint has it all the same."""

from pathlib import Path
from typing import Any

import pytest
import torch

from engine.checkpoints import AtomicCheckpointIO, CheckpointError, complete, load_checkpoint


def checkpoint(epoch: int, frozen: float = 1.0) -> dict[str, Any]:
    state = {"backbone": torch.full((1000,), frozen), "head": torch.full((3,), float(epoch))}
    return {"epoch": epoch, "state_dict": state, "thaw": {"format": 1, "task": "T"}}


def test_what_is_frozen_is_written_once(tmp_path: Path) -> None:
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


def test_the_shared_file_is_no_checkpoint(tmp_path: Path) -> None:
    AtomicCheckpointIO({"backbone"}).save_checkpoint(checkpoint(0), tmp_path / "best.ckpt")
    with pytest.raises(
        CheckpointError, match=r"frozen\.ckpt holds frozen weights alone, .*; ckpt_path takes best\.ckpt or last\.ckpt"
    ):
        load_checkpoint(tmp_path / "frozen.ckpt")


def test_a_run_that_goes_on_finds_it_there(tmp_path: Path) -> None:
    AtomicCheckpointIO({"backbone"}).save_checkpoint(checkpoint(0), tmp_path / "best.ckpt")
    before = (tmp_path / "frozen.ckpt").stat().st_mtime_ns
    AtomicCheckpointIO({"backbone"}).save_checkpoint(checkpoint(1), tmp_path / "last.ckpt")
    assert (tmp_path / "frozen.ckpt").stat().st_mtime_ns == before


def test_checkpoints_are_whole_in_the_end(tmp_path: Path) -> None:
    io = AtomicCheckpointIO({"backbone"})
    best = tmp_path / "best.ckpt"
    io.save_checkpoint(checkpoint(0), best)
    io.save_checkpoint(checkpoint(1), tmp_path / "a_callback_of_the_users.ckpt")
    complete(io.kept)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a_callback_of_the_users.ckpt", "best.ckpt"]
    assert load_checkpoint(tmp_path / "a_callback_of_the_users.ckpt")["epoch"] == 1
    alone = torch.load(best, weights_only=True)
    assert sorted(alone["state_dict"]) == ["backbone", "head"]
    assert "frozen" not in alone["thaw"]
    assert load_checkpoint(best)["epoch"] == 0


def test_a_damaged_file_of_frozen_weights_is_written_anew(tmp_path: Path) -> None:
    (tmp_path / "frozen.ckpt").write_bytes(b"no archive")
    AtomicCheckpointIO({"backbone"}).save_checkpoint(checkpoint(0), tmp_path / "best.ckpt")
    assert torch.equal(load_checkpoint(tmp_path / "best.ckpt")["state_dict"]["backbone"], torch.ones(1000))


@pytest.mark.parametrize("other", [True, False])
def test_weights_that_are_missing_are_told(other: bool, tmp_path: Path) -> None:
    AtomicCheckpointIO({"backbone"}).save_checkpoint(checkpoint(0), tmp_path / "best.ckpt")
    if other:
        AtomicCheckpointIO({"backbone"}).save_checkpoint(checkpoint(0, frozen=2.0), tmp_path / "last.ckpt")
    else:
        (tmp_path / "frozen.ckpt").unlink()
    with pytest.raises(CheckpointError, match="does not hold" if other else "lacks"):
        load_checkpoint(tmp_path / "best.ckpt")


def test_without_anything_frozen_there_is_one_file(tmp_path: Path) -> None:
    AtomicCheckpointIO().save_checkpoint(checkpoint(0), tmp_path / "best.ckpt")
    assert [path.name for path in tmp_path.iterdir()] == ["best.ckpt"]
