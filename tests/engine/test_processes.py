"""Several processes of one job train what one process trains, in one folder, and end together."""

import signal
import sys
import time
from pathlib import Path

import pytest
import torch

from engine.processes import supervisor
from run_folders.run_folder import RunFolder
from tests.conftest import Train
from tests.processes import (
    ONE_OF_TWO,
    ROOT,
    TEXTS,
    Started,
    ended,
    epochs,
    kill,
    processes_of,
    run,
    run_ranks,
    sabotage,
    start,
    wait_for,
)

IMAGES = (
    "data=sample_images",
    "model=image_classifier",
    "data.rows={train: 45, val: 21, test: 23}",
    "data.batch_size=10",
    "data.eval_batch_size=5",
    "model.backbone={architecture: flat_pixels, size: [32, 32]}",
    "head=mlp",
    "model.head.hidden=[16]",
    "model.head.dropout=0.0",
    "model.lr=0.001",
    "trainer.max_epochs=2",
)
# Raises in one process, in the middle of an epoch.
BREAKS = """
import os
if os.environ.get("RANK") == "1" and os.environ.get("TORCHELASTIC_RESTART_COUNT") == "0":
    from lightning_modules.base import Task
    def fail(self):
        raise OSError("disk on fire")
    Task.on_validation_epoch_start = fail
"""
# Overrides for one of two processes that another launcher started; the launcher sets the devices.
SLOW = ("trainer.max_epochs=1000",)  # runs until a signal ends it


def losses(folder: Path) -> list[float]:
    return [
        float(row[f"{stage}/loss"])
        for row in RunFolder(folder).read_history()
        for stage in ("train", "val")
    ]


def status(folder: Path) -> dict[str, str]:
    return RunFolder(folder).read_json("status.json")


def train_with_one_and_two(folder: Path, *overrides: str) -> None:
    """Train with one process into `one`, and with two unsupervised processes into `two`."""
    code, _, err = run(*overrides, "trainer=cpu", f"hydra.run.dir={folder / 'one'}", cwd=folder)
    assert code == 0, err
    ranks = run_ranks(2, *overrides, *ONE_OF_TWO, f"hydra.run.dir={folder / 'two'}", cwd=folder)
    assert [code for code, _, _ in ranks] == [0, 0], ranks


def test_images_train_on_two_processes_as_on_one(tmp_path: Path) -> None:
    train_with_one_and_two(tmp_path, *IMAGES)
    assert losses(tmp_path / "two") == pytest.approx(losses(tmp_path / "one"), rel=1e-5)


def test_stored_features_train_on_two_processes_as_on_one(tmp_path: Path) -> None:
    overrides = (
        *TEXTS,
        "model.freeze_backbone=true",
        "cache.features=true",
        f"cache.dir={tmp_path / 'features'}",
    )
    train_with_one_and_two(tmp_path, *overrides)
    for folder in ("one", "two"):
        assert (
            RunFolder(tmp_path / folder).read_json("plan.json")["features"]["stored"]
            == "the whole backbone"
        )
    assert losses(tmp_path / "two") == pytest.approx(losses(tmp_path / "one"), rel=1e-5)
    one, two = (RunFolder(tmp_path / folder).read_json("metrics.json") for folder in ("one", "two"))
    assert two["test"]["acc"] == one["test"]["acc"]


def test_a_process_that_fails_ends_all_with_its_error(tmp_path: Path) -> None:
    folder = tmp_path / "run"
    pythonpath = sabotage(tmp_path / "site", BREAKS)
    code, _, err = run(*TEXTS, "trainer=ddp_cpu", f"hydra.run.dir={folder}", PYTHONPATH=pythonpath)
    assert code == 1
    assert (status(folder)["state"], status(folder)["stage"]) == ("failed", "fit")
    assert status(folder)["error"] == "rank 1: OSError: disk on fire"
    assert err.count("error: ") == 1
    assert "error: rank 1: OSError: disk on fire" in err
    assert "disk on fire" in (folder / "rank1.log").read_text()
    assert not processes_of(folder)


def test_a_signal_interrupts_all_and_one_process_can_resume(tmp_path: Path) -> None:
    folder = tmp_path / "run"
    process = start(*TEXTS, *SLOW, "trainer=ddp_cpu", f"hydra.run.dir={folder}")
    wait_for(lambda: (folder / "checkpoints" / "last.ckpt").exists(), process)
    process.send_signal(signal.SIGTERM)
    code, _, err = ended(process)
    assert code == 143
    assert status(folder) | {"state": "interrupted", "error": "stopped by SIGTERM"} == status(
        folder
    )
    assert err.count("to resume: ") == 1
    assert not processes_of(folder)
    before = epochs(folder)
    resumed = (f"trainer.max_epochs={before + 1}", f"hydra.run.dir={folder}", "ckpt_path=last")
    code, _, err = run(*TEXTS, "trainer=cpu", *resumed)
    assert code == 0, err
    assert epochs(folder) == before + 1
    assert status(folder)["state"] == "finished"


CHILD = """
import os, sys, time
from engine.processes.signals import InterruptedRunError, signals_raise
from engine.processes.supervisor import end_with_supervisor
with signals_raise():
    end_with_supervisor()
    place = os.path.join(sys.argv[1], os.environ["RANK"])
    with open(f"{place}.pid", "w") as file:
        file.write(str(os.getpid()))
    open(place, "w").close()
    try:
        time.sleep(600)
    except InterruptedRunError as error:
        with open(place, "w") as file:
            file.write(str(error))
"""


def supervise(folder: str) -> None:
    supervisor._GRACE = 0.0
    print(
        supervisor.Processes(
            [sys.executable, "-c", CHILD, folder], 2, 1, RunFolder(Path(folder))
        ).run()
    )


def start_supervisor(folder: Path) -> Started:
    """Start a supervisor of two processes, each of which records the signal that it receives."""
    RunFolder(folder).write_status("running", "fit")
    process = start(folder, program=supervise, PYTHONPATH=str(ROOT))
    wait_for(lambda: all((folder / rank).exists() for rank in "01"), process)
    return process


def test_a_process_that_is_killed_ends_all(tmp_path: Path) -> None:
    process = start_supervisor(tmp_path)
    kill(int((tmp_path / "1.pid").read_text()), signal.SIGKILL)
    code, out, err = ended(process)
    assert code == 0, err
    assert out.startswith("rank 1 was killed by SIGKILL")
    assert status(tmp_path)["state"] == "failed"
    assert status(tmp_path)["error"] == out.strip()
    assert (tmp_path / "0").read_text() == "stopped by SIGTERM"


def test_processes_are_stopped_if_their_supervisor_dies(tmp_path: Path) -> None:
    process = start_supervisor(tmp_path)
    process.kill()
    process.wait()
    deadline = time.monotonic() + 60
    while not all((tmp_path / rank).read_text() == "stopped by SIGTERM" for rank in "01"):
        assert time.monotonic() < deadline
        time.sleep(0.05)


# Hugging Face's DPT has layers that segmentation does not use.
UNUSED_LAYERS = (
    "data=sample_scenes",
    "model=segmenter",
    "monitor=val/miou",
    "data.rows={train: 8, val: 4, test: 4}",
    "data.batch_size=4",
    "model.backbone={model_type: dpt, hidden_size: 16, num_attention_heads: 2, intermediate_size: 32, image_size: 64, "
    "num_hidden_layers: 4, backbone_out_indices: [0, 1, 2, 3], neck_hidden_sizes: [8, 8, 8, 8], fusion_hidden_size: 8, "
    "is_hybrid: false, use_auxiliary_head: false}",
    "model.lr=0.001",
    "trainer.max_epochs=2",
)


def test_parameters_that_the_loss_does_not_reach_are_named(tmp_path: Path) -> None:
    ranks = run_ranks(
        2, *UNUSED_LAYERS, *ONE_OF_TWO, f"hydra.run.dir={tmp_path / 'run'}", cwd=tmp_path
    )
    assert [code for code, _, _ in ranks] == [1, 1]
    err = ranks[0][2]
    assert "the loss does not reach every parameter (features." in err, err
    assert "set trainer.strategy=ddp_find_unused_parameters_true" in err
    assert "Traceback" not in err
    assert status(tmp_path / "run")["state"] == "failed"


@pytest.mark.parametrize(
    ("overrides", "expected"),
    [
        (
            ["trainer=ddp_cpu", "trainer.devices=3", "data.batch_size=2", "plan=true"],
            ["data.batch_size: received 2", "3 processes"],
        ),
        (
            ["trainer.strategy=ddp_spawn"],
            ["trainer.strategy: received 'ddp_spawn'", "choose one of auto, ddp"],
        ),
        (["trainer.num_nodes=2"], ["trainer.num_nodes: received 2", "torchrun --nnodes=2"]),
    ],
)
def test_impossible_placement_is_reported_in_one_line(
    overrides: list[str], expected: list[str], train: Train
) -> None:
    done = train(*TEXTS, *overrides)
    assert done.code == 1
    assert all(part in done.error for part in expected), done.error
    assert len(done.error.splitlines()) == 1
    assert "Traceback" not in done.err


@pytest.mark.parametrize("trainer", ["gpu", "ddp", "fsdp"])
def test_missing_gpus_are_reported_in_one_line(
    trainer: str, train: Train, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 0)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    done = train(*TEXTS, f"trainer={trainer}", "trainer.accelerator=gpu")
    assert done.code == 1
    assert (
        done.error
        == "error: trainer.accelerator: received 'gpu', but this machine has no GPU; set trainer=cpu"
    )
    assert "Traceback" not in done.err
