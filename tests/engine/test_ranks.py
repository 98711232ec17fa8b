"""Who starts the processes, and where they meet: as torchrun, srun and train.py itself say it."""

import contextlib
import itertools
import os
import signal
import socket
import sys
from pathlib import Path

import pytest
from lightning.fabric.plugins.environments.torchelastic import TorchElasticEnvironment
from omegaconf import OmegaConf
from torch.distributed import TCPStore  # type: ignore[attr-defined]

from engine.processes.devices import placement, slurm_rendezvous
from engine.processes.ranks import (
    LaunchError,
    Rank,
    log_name,
    new_rendezvous,
    stamp,
    this_rank,
    was_restarted,
)
from run_folders.run_folder import RunFolder
from tests.pausing import pausing
from tests.processes import (
    TEXTS,
    Started,
    ended,
    epochs,
    run,
    run_cold,
    sabotage,
    start,
    start_cold,
    wait_for,
)

TORCHRUN = (sys.executable, "-m", "torch.distributed.run")
ONE_OF_TWO = ("trainer=cpu", "trainer.strategy=ddp")  # devices and num_nodes are the launcher's
STEP = {
    "SLURM_JOB_ID": "4711",
    "SLURM_STEP_ID": "0",
    "SLURM_JOB_NAME": "thaw",
    "SLURM_STEP_NUM_TASKS": "8",
    "SLURM_STEP_NUM_NODES": "2",
    "SLURM_PROCID": "5",
    "SLURM_LOCALID": "1",
    "SLURM_NODEID": "1",
    "SLURM_STEP_NODELIST": "gpu[03-05,9],cpu7",
}
# Raises on one process of the first attempt, behind the first checkpoint.
BREAKS_ONCE = """
import os
if os.environ.get("RANK") == "1" and os.environ.get("TORCHELASTIC_RESTART_COUNT") == "0":
    from lightning_modules.base import Task
    real = Task.on_train_epoch_start
    def fail(self):
        if self.current_epoch == 1:
            raise OSError("disk on fire")
        real(self)
    Task.on_train_epoch_start = fail
"""


def test_srun_and_torchrun_say_which_process_this_is() -> None:
    assert this_rank({}) is None
    assert (
        this_rank({"SLURM_JOB_ID": "4711", "SLURM_NTASKS": "8", "SLURM_PROCID": "0"}) is None
    )  # the batch script itself
    assert this_rank({**STEP, "SLURM_STEP_NUM_TASKS": "1"}) is None
    assert this_rank(STEP) == Rank(
        number=5, world=8, local=1, local_world=4, node=1, launcher="srun"
    )
    assert slurm_rendezvous(STEP) == ("gpu03", 19711)
    assert slurm_rendezvous({**STEP, "SLURM_STEP_ID": "3"}) == (
        "gpu03",
        19714,
    )  # two steps of one job
    assert slurm_rendezvous({**STEP, "MASTER_ADDR": "host", "MASTER_PORT": "1234"}) == (
        "host",
        1234,
    )
    torchrun = {
        "RANK": "3",
        "LOCAL_RANK": "1",
        "WORLD_SIZE": "4",
        "LOCAL_WORLD_SIZE": "2",
        "GROUP_RANK": "1",
    }
    assert this_rank(torchrun) == Rank(3, 4, 1, 2, 1, "torchrun")
    with pytest.raises(LaunchError, match="7 tasks on 2 nodes"):
        this_rank({**STEP, "SLURM_STEP_NUM_TASKS": "7"})


@pytest.mark.parametrize(
    ("more", "name"),
    [
        ({}, "slurm_4711"),
        ({"SLURM_STEP_ID": "3"}, "slurm_4711_step3"),
        ({"SLURM_ARRAY_JOB_ID": "4700", "SLURM_ARRAY_TASK_ID": "11"}, "slurm_4700_11"),
        (
            {"SLURM_JOB_NAME": "interactive"},
            "slurm_4711",
        ),  # the processes of one step still have to agree
        ({"SLURM_JOB_NAME": "interactive", "SLURM_STEP_NUM_TASKS": "1"}, None),
    ],
)
def test_a_job_of_slurm_finds_its_folder_again(
    more: dict[str, str], name: str | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    for key, value in {**STEP, **more}.items():
        monkeypatch.setenv(key, value)
    assert stamp() == name if name else "slurm" not in stamp()


def test_restarts_and_logs_are_told_by_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    assert not was_restarted({})
    assert not was_restarted({"SLURM_RESTART_COUNT": "0", "TORCHELASTIC_RESTART_COUNT": "0"})
    assert was_restarted({"SLURM_RESTART_COUNT": "1"})
    assert was_restarted({"TORCHELASTIC_RESTART_COUNT": "2"})
    assert log_name("train") == "train.log"
    for key, value in STEP.items():
        monkeypatch.setenv(key, value)
    assert log_name("train") == "rank5.log"


def only_run(folder: Path) -> Path:
    """The one run folder that all processes of a job have agreed on."""
    found = list((folder / "runs" / "sample_text").iterdir())
    assert len(found) == 1, found
    return found[0]


def finished(folder: Path) -> bool:
    status = RunFolder(folder).read_json("status.json")
    return status["state"] == "finished" and (folder / "report.html").is_file()


def test_two_nodes_under_torchrun_end_in_one_report(tmp_path: Path) -> None:
    """Two agents on this machine, each with the words of another node."""
    meet = (
        "--nnodes=2",
        "--nproc-per-node=1",
        "--rdzv-backend=c10d",
        f"--rdzv-endpoint=localhost:{free_port()}",
        "--rdzv-id=t",
    )
    nodes = [
        start_cold(*TEXTS, *ONE_OF_TWO, launcher=(*TORCHRUN, *meet), cwd=tmp_path) for _ in range(2)
    ]
    for code, _, err in [ended(node) for node in nodes]:
        assert code == 0, err
    folder = only_run(tmp_path)
    assert finished(folder)
    cfg = (folder / "config.yaml").read_text()
    assert "num_nodes: 2" in cfg
    assert "devices: 1" in cfg
    assert RunFolder(folder).read_json("plan.json")["device"] == "2 nodes of 1 x cpu"
    assert RunFolder(folder).read_json("metrics.json")["test"]["n"] == 41


def test_torchrun_starts_again_and_the_run_goes_on(tmp_path: Path) -> None:
    """With torchrun's own way to meet, which is another than that of the test above."""
    place = sabotage(tmp_path / "site", BREAKS_ONCE)
    words = ("--nproc-per-node=2", "--max-restarts=1", f"--master-port={free_port()}")
    code, _, err = run_cold(
        *TEXTS, *ONE_OF_TWO, launcher=(*TORCHRUN, *words), cwd=tmp_path, PYTHONPATH=place
    )
    assert code == 0, err
    assert "disk on fire" in err + (only_run(tmp_path) / "rank1.log").read_text()
    assert finished(only_run(tmp_path))
    assert epochs(only_run(tmp_path)) == 2
    assert len(RunFolder(only_run(tmp_path)).read_json("provenance.json")["resumed"]) == 1


def test_lightning_knows_what_srun_says(monkeypatch: pytest.MonkeyPatch) -> None:
    """Without a count of tasks per node, which Lightning's own class needs."""
    torchrun = (
        "RANK",
        "WORLD_SIZE",
        "LOCAL_RANK",
        "LOCAL_WORLD_SIZE",
        "GROUP_RANK",
        "MASTER_ADDR",
        "MASTER_PORT",
    )
    for name in torchrun:
        monkeypatch.setenv(name, "")  # what is set here is taken back
        monkeypatch.delenv(name)
    for name, value in STEP.items():
        monkeypatch.setenv(name, value)
    cfg = OmegaConf.create(
        {"trainer": {"accelerator": "cpu", "strategy": "ddp", "devices": 4, "num_nodes": 2}}
    )
    for _ in range(2):  # a config is checked before it is built
        environment = placement(cfg)["plugin"]
        assert (environment.global_rank(), environment.local_rank(), environment.node_rank()) == (
            5,
            1,
            1,
        )
        assert (environment.world_size(), environment.main_address, environment.main_port) == (
            8,
            "gpu03",
            19711,
        )
        environment.validate_settings(num_devices=4, num_nodes=2)


def test_processes_that_are_started_again_meet_elsewhere(monkeypatch: pytest.MonkeyPatch) -> None:
    """The run above can be lucky: it depends on who reads the agents' store first whether the old addresses are found in it."""
    agents = TCPStore("127.0.0.1", 0, is_master=True, wait_for_workers=False)
    kept = []  # by rank 0, and what is cached in a process

    def port(rank: str, attempt: str) -> int:
        told = Rank(int(rank), 2, int(rank), 2, 0, "torchrun").as_torchrun("127.0.0.1", agents.port)
        told |= {"TORCHELASTIC_USE_AGENT_STORE": "True", "TORCHELASTIC_RESTART_COUNT": attempt}
        for name, value in told.items():
            monkeypatch.setenv(name, value)
        kept.append(new_rendezvous.__wrapped__())
        return TorchElasticEnvironment().main_port

    assert port("0", "0") == agents.port
    first, second = port("0", "1"), port("0", "2")
    assert len({agents.port, first, second}) == 3
    assert port("1", "1") == first
    assert port("1", "2") == second
    TCPStore("127.0.0.1", second, is_master=False).set("met", "yes")


def test_torchrun_cannot_sweep(tmp_path: Path) -> None:
    alone = {"RANK": "0", "LOCAL_RANK": "0", "WORLD_SIZE": "1", "TORCHELASTIC_RUN_ID": "none"}
    code, _, err = run("-m", *TEXTS, "seed=1,2", f"hydra.sweep.dir={tmp_path}", **alone)
    assert code == 1
    assert (
        "error: torchrun cannot run a sweep; start train.py -m without torchrun, with trainer.devices=N"
        in err
    )


# Each process that runs tests has ports of its own, below those that the system gives to whoever
# asks for any.
PORTS = itertools.count(
    20000 + 200 * int(os.environ.get("PYTEST_XDIST_WORKER", "gw0").removeprefix("gw"))
)


def free_port() -> int:
    """A port that nobody listens on, and that no other test is given until it is used."""
    for port in PORTS:
        with socket.socket() as found, contextlib.suppress(OSError):
            found.bind(("127.0.0.1", port))
            return port
    raise AssertionError


SCONTROL = """#!/bin/sh
echo "$@" >> "$SCONTROL_LOG"
"""


def test_a_job_that_slurm_takes_down_goes_on_by_itself(tmp_path: Path) -> None:
    """srun of two tasks, warned by SIGUSR1 and started again: the history is that of a job that was left alone."""
    fake = tmp_path / "bin" / "scontrol"
    fake.parent.mkdir()
    fake.write_text(SCONTROL)
    fake.chmod(0o755)
    words = (*TEXTS, "trainer=cpu", "trainer.strategy=ddp")
    asked = tmp_path / "asked"

    def srun(job: str, *pause: int, **more: str) -> list[Started]:
        step = {
            **STEP,
            "SLURM_JOB_ID": job,
            "SLURM_STEP_NUM_TASKS": "2",
            "SLURM_STEP_NUM_NODES": "1",
            "SLURM_NODEID": "0",
        }
        step |= {
            "SLURM_STEP_NODELIST": "localhost",
            "PATH": f"{fake.parent}:/usr/bin:/bin",
            "SCONTROL_LOG": str(asked),
        }
        tasks = [{"SLURM_PROCID": str(rank), "SLURM_LOCALID": str(rank)} for rank in range(2)]
        program = pausing if pause else "train.py"
        told = [{**step, "MASTER_PORT": port, **task, **more} for task in tasks]
        return [start(*pause, *words, program=program, cwd=tmp_path, **each) for each in told]

    port = str(free_port())
    tasks = srun("1", 1, 0)
    folder = tmp_path / "runs" / "sample_text" / "slurm_1"
    wait_for(lambda: (folder / "checkpoints" / "last.ckpt").exists(), tasks[0])
    for task in tasks:
        task.send_signal(signal.SIGUSR1)
    assert [code for code, _, _ in map(ended, tasks)] == [138, 138]
    assert RunFolder(folder).read_json("status.json")["state"] == "interrupted"
    assert asked.read_text() == "requeue 1\n"  # once, by one of them
    assert epochs(folder) == 1

    port = str(free_port())
    again = [ended(task) for task in srun("1", SLURM_RESTART_COUNT="1")]
    assert [code for code, _, _ in again] == [0, 0], again
    port = str(free_port())
    alone = [ended(task) for task in srun("2")]
    assert [code for code, _, _ in alone] == [0, 0], alone
    assert history(folder) == history(folder.with_name("slurm_2"))
    assert len(history(folder)) == 2


def history(folder: Path) -> list[dict[str, str]]:
    rows = RunFolder(folder).read_history()
    return [
        {
            key: value
            for key, value in row.items()
            if "seconds" not in key and "samples_per" not in key
        }
        for row in rows
    ]
