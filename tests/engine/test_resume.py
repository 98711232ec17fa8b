"""A run that is killed after any epoch and resumed equals an uninterrupted run.

Weights, history and predictions are identical.
"""

import os
import shutil
import signal
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pandas as pd
import pytest
import torch

from engine.resuming import restoring
from lightning_modules.callbacks.epoch_timer import EpochTimer
from lightning_modules.callbacks.history import History
from run_folders.run_folder import RunFolder
from run_folders.untrusted import DamagedFileError
from tests.conftest import LINEAR_SAMPLE, SAMPLE, Train, identical
from tests.pausing import pausing
from tests.processes import run, start, wait_for

EPOCHS = 4
LONGER = (
    *SAMPLE,
    f"trainer.max_epochs={EPOCHS}",
    "model.backbone.num_hidden_layers=2",
)
TIMES = ("seconds", "samples_per_second")


def kill_after_epoch(folder: Path, epoch: int) -> None:
    """Kill a run after the checkpoint of an epoch and before the next epoch."""
    process = start(
        epoch + 1, 0, *LONGER, f"hydra.run.dir={folder}", program=pausing, cwd=folder.parent
    )
    checkpoint = folder / "checkpoints" / "last.ckpt"
    wait_for(
        lambda: checkpoint.exists() and torch.load(checkpoint, weights_only=True)["epoch"] >= epoch,
        process,
    )
    process.send_signal(signal.SIGKILL)
    code = process.wait()
    if epoch < EPOCHS - 1:  # after the last epoch, the run may end before the signal
        assert code == -signal.SIGKILL
        assert RunFolder(folder).read_json("status.json")["state"] == "running"


def history(folder: Path) -> list[dict[str, str]]:
    rows = RunFolder(folder).read_history()
    return [{key: value for key, value in row.items() if not key.endswith(TIMES)} for row in rows]


@pytest.fixture(scope="module")
def uninterrupted(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("uninterrupted") / "run"
    code, _, errors = run(*LONGER, f"hydra.run.dir={folder}", cwd=folder.parent)
    assert code == 0, errors
    return folder


@pytest.mark.parametrize("epoch", range(EPOCHS))
def test_killed_and_resumed_equals_uninterrupted(
    epoch: int, uninterrupted: Path, tmp_path: Path
) -> None:
    folder = tmp_path / "run"
    kill_after_epoch(folder, epoch)
    code, _, errors = run(*LONGER, f"hydra.run.dir={folder}", "ckpt_path=last", cwd=tmp_path)
    assert code == 0, errors

    for name in ("best.ckpt", "last.ckpt"):
        ours, theirs = (
            torch.load(f / "checkpoints" / name, weights_only=True) for f in (folder, uninterrupted)
        )
        assert ours["epoch"] == theirs["epoch"]
        assert identical(dict(ours["state_dict"]), dict(theirs["state_dict"]))
        assert identical(ours["optimizer_states"], theirs["optimizer_states"])
    assert history(folder) == history(uninterrupted)
    assert len(history(folder)) == EPOCHS
    tables = [pd.read_parquet(f / "predictions" / "test.parquet") for f in (folder, uninterrupted)]
    pd.testing.assert_frame_equal(*tables, check_exact=True)
    metrics = [RunFolder(f).read_json("metrics.json") for f in (folder, uninterrupted)]
    assert all(metrics[0][key] == metrics[1][key] for key in ("val", "test", "best", "parameters"))


def test_more_epochs_can_be_added_to_a_finished_run(train: Train) -> None:
    train(*SAMPLE, "schedule=constant", "trainer.max_epochs=1")
    longer = train(*SAMPLE, "schedule=constant", "trainer.max_epochs=2", "ckpt_path=last")
    assert longer.code == 0, longer.err
    assert [row["epoch"] for row in RunFolder(longer.folder).read_history()] == ["0", "1"]


def test_resuming_without_a_checkpoint_is_reported(train: Train) -> None:
    ended = train(*SAMPLE, "ckpt_path=last")
    assert ended.code == 1
    assert "has no checkpoint to resume from; leave ckpt_path out to start a run" in ended.error


def test_resuming_on_other_data_is_rejected(train: Train) -> None:
    train(*SAMPLE, "trainer.max_epochs=1")
    ended = train(*SAMPLE, "data.rows={train: 90, val: 32, test: 40}", "ckpt_path=last")
    assert ended.code == 1
    assert "the train split is not the one" in ended.error
    assert "96 rows then, 90 now" in ended.error


def test_a_resumed_run_keeps_its_start_and_records_the_resumption(train: Train) -> None:
    folder = RunFolder(train(*SAMPLE, "trainer.max_epochs=1").folder)
    before, started = (
        folder.read_json("provenance.json"),
        folder.read_json("status.json")["started"],
    )
    train(*SAMPLE, "ckpt_path=last")
    after = folder.read_json("provenance.json")
    assert {key: after[key] for key in before} == before
    assert [origin["seed"] for origin in after["resumed"]] == [1]
    assert folder.read_json("status.json")["started"] == started


def test_a_checkpoint_of_another_run_does_not_open_a_finished_folder(
    train: Train, tmp_path: Path
) -> None:
    a, b = (train(*SAMPLE, "trainer.max_epochs=1", folder=tmp_path / name).folder for name in "ab")
    before = {
        path: path.read_bytes()
        for path in b.rglob("*")
        if path.is_file() and path.name != "train.log"
    }
    ended = train(*SAMPLE, f"ckpt_path={a / 'checkpoints' / 'last.ckpt'}", folder=b)
    assert ended.code == 1
    assert "holds a run already" in ended.error
    assert {path: path.read_bytes() for path in before} == before


def test_fewer_epochs_than_in_the_checkpoint_are_rejected(train: Train) -> None:
    train(*SAMPLE, "trainer.max_epochs=3")
    ended = train(*SAMPLE, "trainer.max_epochs=1", "ckpt_path=last")
    assert ended.code == 1
    assert "trainer.max_epochs=1 ends before it" in ended.error


def test_another_config_in_the_same_folder_is_rejected_and_the_status_is_kept(train: Train) -> None:
    first = train(*SAMPLE, "trainer.max_epochs=1")
    status = RunFolder(first.folder).read_json("status.json")
    ended = train(*LINEAR_SAMPLE, "model.lr=0.5", "ckpt_path=last")
    assert ended.code == 1
    assert RunFolder(first.folder).read_json("status.json") == status
    other = train(*SAMPLE, "monitor=val/loss", "mode=min", "ckpt_path=last")
    assert "monitor was 'val/acc' and is 'val/loss'" in other.error
    assert "began with another config: " in ended.error
    assert "model.lr was 0.002 and is 0.5" in ended.error
    heads = "lightning_modules.networks.heads"
    assert f"model.head._target_ was '{heads}.BiGRUHead' and is '{heads}.LinearHead'" in ended.error


def test_checkpoint_of_another_network_is_rejected(train: Train, tmp_path: Path) -> None:
    first = train(*SAMPLE, "trainer.max_epochs=1")
    last = first.folder / "checkpoints" / "last.ckpt"
    ended = train(*SAMPLE, "model.head.hidden=4", f"ckpt_path={last}", folder=tmp_path / "other")
    assert ended.code == 1
    assert (
        "is of another network: network.head.gru.forwards.weight_ih_l0 is (24, 64) in it and (12, 64)"
        in ended.error
    )


def test_a_moved_folder_keeps_its_best_checkpoint(train: Train, tmp_path: Path) -> None:
    overrides = [*SAMPLE, "schedule=constant", "monitor=val/loss", "mode=min"]
    first = train(*overrides, "trainer.max_epochs=2")
    before = RunFolder(first.folder).read_json("metrics.json")["best"]
    moved = first.folder.rename(tmp_path / "moved")
    longer = train(*overrides, "trainer.max_epochs=3", "ckpt_path=last", folder=moved)
    assert longer.code == 0, longer.err
    losses = [float(row["val/loss"]) for row in RunFolder(moved).read_history()]
    after = RunFolder(moved).read_json("metrics.json")["best"]
    assert after["epoch"] == losses.index(min(losses))
    assert after["score"] == min(losses) <= before["score"]


def test_the_best_score_moves_with_the_folder_and_not_to_another_run(tmp_path: Path) -> None:
    from lightning_modules.callbacks.folder_checkpoint import FolderCheckpoint

    state = {
        "dirpath": "/gone", "best_model_path": "/gone/best.ckpt", "kth_best_model_path": "/gone/best.ckpt", "last_model_path": "",
        "best_k_models": {"/gone/best.ckpt": torch.tensor(0.9)}, "best_model_score": torch.tensor(0.9),
        "kth_value": torch.tensor(0.9), "current_score": torch.tensor(0.8), "monitor": "val/acc",
    }  # fmt: skip
    (tmp_path / "same").mkdir()
    (tmp_path / "same" / "best.ckpt").touch()
    same = FolderCheckpoint(
        dirpath=tmp_path / "same", filename="best", monitor="val/acc", mode="max"
    )
    same.load_state_dict(state)
    assert same.best_model_score == torch.tensor(0.9)
    assert same.best_k_models == {str(tmp_path / "same" / "best.ckpt"): torch.tensor(0.9)}
    other = FolderCheckpoint(
        dirpath=tmp_path / "other", filename="best", monitor="val/acc", mode="max"
    )
    other.load_state_dict(state)
    assert other.best_model_score is None
    assert not other.best_k_models


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("finished") / "run"
    code, _, errors = run(
        *SAMPLE, "trainer.max_epochs=1", f"hydra.run.dir={folder}", cwd=folder.parent
    )
    assert code == 0, errors
    return folder


@pytest.mark.parametrize("name", ["last.ckpt", "best.ckpt"])
@pytest.mark.parametrize("damage", ["cut", "flip", "empty", "text", "foreign"])
def test_damaged_or_foreign_checkpoint_is_rejected(
    name: str, damage: str, finished: Path, train: Train, tmp_path: Path
) -> None:
    folder = tmp_path / "run"
    shutil.copytree(finished, folder)
    path = folder / "checkpoints" / name
    content = path.read_bytes()
    if damage == "cut":
        path.write_bytes(content[: len(content) // 2])
    elif damage == "flip":
        middle = len(content) // 2
        path.write_bytes(
            content[:middle]
            + bytes(b ^ 0xFF for b in content[middle : middle + 64])
            + content[middle + 64 :]
        )
    elif damage == "empty":
        path.write_bytes(b"")
    elif damage == "text":
        path.write_text("not a checkpoint")
    else:
        torch.save({"state_dict": {}, "epoch": 0}, path)
    before = (folder / "metrics.json").read_bytes()
    ended = train(*SAMPLE, "trainer.max_epochs=2", f"ckpt_path={path}")
    assert ended.code == 1
    assert str(path) in ended.error
    assert "not a checkpoint" in ended.error
    assert "Traceback" not in ended.err
    assert (folder / "metrics.json").read_bytes() == before


def test_checkpoint_that_would_run_code_is_rejected(train: Train, tmp_path: Path) -> None:
    class Evil:
        def __reduce__(self) -> tuple[object, tuple[str]]:
            return os.system, (f"touch {tmp_path / 'ran'}",)

    torch.save({"thaw": {"format": 1}, "epoch": 0, "x": Evil()}, tmp_path / "evil.ckpt")
    ended = train(*SAMPLE, f"ckpt_path={tmp_path / 'evil.ckpt'}")
    assert ended.code == 1
    assert "evil.ckpt is damaged or not a checkpoint of Thaw" in ended.error
    assert not (tmp_path / "ran").exists()


def test_only_an_error_of_the_state_names_the_checkpoint(tmp_path: Path) -> None:
    weight = torch.nn.Parameter(torch.zeros(2))
    trainer: Any = SimpleNamespace(callbacks=[History(RunFolder(tmp_path), EpochTimer())])
    path = tmp_path / "last.ckpt"

    def step(state: dict[str, Any], error: Exception | None = None, *, fused: bool = False) -> None:
        def closure() -> float:
            if error is not None:
                raise error
            weight.grad = torch.ones(2)
            return 0.0

        optimizer = torch.optim.Adam([weight], lr=0.1, fused=fused)
        optimizer.state[weight] = state
        with restoring(path, trainer):
            optimizer.step(closure)

    sound = {"step": torch.tensor(1.0), "exp_avg": torch.zeros(2), "exp_avg_sq": torch.zeros(2)}
    step(sound)
    for damage, fused in (
        ({"step": torch.tensor(1.0)}, False),
        ({**sound, "exp_avg": torch.zeros(3), "exp_avg_sq": torch.zeros(3)}, False),
        ({**sound, "exp_avg_sq": float("nan")}, True),  # fails where torch sorts the tensors
    ):
        with pytest.raises(DamagedFileError, match="training cannot continue with it"):
            step(damage, fused=fused)
    for error in (RuntimeError("a bug"), torch.OutOfMemoryError("full"), KeyError("a bug")):
        with pytest.raises(type(error)) as caught:
            step({}, error)
        assert caught.value is error
    trainer.callbacks[0].started = True
    with pytest.raises(KeyError):
        step({"step": torch.tensor(1.0)})
