"""Ranks and rendezvous of processes that torchrun, srun or train.py starts."""

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
    ONE_OF_TWO,
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
# Raises in one process of the first attempt, after the first checkpoint.
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


def test_rank_is_read_from_the_variables_of_srun_and_torchrun() -> None:
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
    )  # another step of the same job
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
    ("variables", "name"),
    [
        ({}, "slurm_4711"),
        ({"SLURM_STEP_ID": "3"}, "slurm_4711_step3"),
        ({"SLURM_ARRAY_JOB_ID": "4700", "SLURM_ARRAY_TASK_ID": "11"}, "slurm_4700_11"),
        (
            {"SLURM_JOB_NAME": "interactive"},
            "slurm_4711",
        ),  # the processes of one step need the same name
        ({"SLURM_JOB_NAME": "interactive", "SLURM_STEP_NUM_TASKS": "1"}, None),
    ],
)
def test_run_folder_of_a_slurm_job_is_named_after_the_job(
    variables: dict[str, str], name: str | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    for key, value in {**STEP, **variables}.items():
        monkeypatch.setenv(key, value)
    assert stamp() == name if name else "slurm" not in stamp()


def test_restarts_and_log_names_are_read_from_the_environment(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    assert not was_restarted({})
    assert not was_restarted({"SLURM_RESTART_COUNT": "0", "TORCHELASTIC_RESTART_COUNT": "0"})
    assert was_restarted({"SLURM_RESTART_COUNT": "1"})
    assert was_restarted({"TORCHELASTIC_RESTART_COUNT": "2"})
    assert log_name("train") == "train.log"
    for key, value in STEP.items():
        monkeypatch.setenv(key, value)
    assert log_name("train") == "rank5.log"


def only_run(folder: Path) -> Path:
    """Return the only run folder, which all processes of a job share."""
    found = list((folder / "runs" / "sample_text").iterdir())
    assert len(found) == 1, found
    return found[0]


def finished(folder: Path) -> bool:
    status = RunFolder(folder).read_json("status.json")
    return status["state"] == "finished" and (folder / "report.html").is_file()


def test_two_nodes_of_torchrun_write_one_report(tmp_path: Path) -> None:
    """Two torchrun agents on this machine act as two nodes."""
    rendezvous = (
        "--nnodes=2",
        "--nproc-per-node=1",
        "--rdzv-backend=c10d",
        f"--rdzv-endpoint=localhost:{free_port()}",
        "--rdzv-id=t",
    )
    nodes = [
        start_cold(*TEXTS, *ONE_OF_TWO, launcher=(*TORCHRUN, *rendezvous), cwd=tmp_path)
        for _ in range(2)
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


def test_torchrun_restarts_and_the_run_resumes(tmp_path: Path) -> None:
    """With torchrun's default rendezvous, unlike the test above."""
    pythonpath = sabotage(tmp_path / "site", BREAKS_ONCE)
    arguments = ("--nproc-per-node=2", "--max-restarts=1", f"--master-port={free_port()}")
    code, _, err = run_cold(
        *TEXTS, *ONE_OF_TWO, launcher=(*TORCHRUN, *arguments), cwd=tmp_path, PYTHONPATH=pythonpath
    )
    assert code == 0, err
    assert "disk on fire" in err + (only_run(tmp_path) / "rank1.log").read_text()
    assert finished(only_run(tmp_path))
    assert epochs(only_run(tmp_path)) == 2
    assert len(RunFolder(only_run(tmp_path)).read_json("provenance.json")["resumed"]) == 1


def test_lightning_gets_the_ranks_of_srun(monkeypatch: pytest.MonkeyPatch) -> None:
    """The count of tasks per node, which Lightning's own class needs, is not set."""
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
        monkeypatch.setenv(name, "")  # so that monkeypatch restores it
        monkeypatch.delenv(name)
    for name, value in STEP.items():
        monkeypatch.setenv(name, value)
    cfg = OmegaConf.create(
        {"trainer": {"accelerator": "cpu", "strategy": "ddp", "devices": 4, "num_nodes": 2}}
    )
    for _ in range(2):  # a config is checked, then built
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


def test_restarted_processes_get_a_new_rendezvous(monkeypatch: pytest.MonkeyPatch) -> None:
    """The run above may pass without a new rendezvous.

    Whether it finds old addresses depends on which process reads the agents' store first.
    """
    agents = TCPStore("127.0.0.1", 0, is_master=True, wait_for_workers=False)
    kept = []  # keeps the store alive, as the bypassed cache would

    def port(rank: str, attempt: str) -> int:
        variables = Rank(int(rank), 2, int(rank), 2, 0, "torchrun").as_torchrun(
            "127.0.0.1", agents.port
        )
        variables |= {"TORCHELASTIC_USE_AGENT_STORE": "True", "TORCHELASTIC_RESTART_COUNT": attempt}
        for name, value in variables.items():
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


# Each pytest-xdist worker has its own ports, below those that the system assigns by itself.
PORTS = itertools.count(
    20000 + 200 * int(os.environ.get("PYTEST_XDIST_WORKER", "gw0").removeprefix("gw"))
)


def free_port() -> int:
    """Return a port that is not in use and that no other test gets."""
    for port in PORTS:
        with socket.socket() as found, contextlib.suppress(OSError):
            found.bind(("127.0.0.1", port))
            return port
    raise AssertionError


SCONTROL = """#!/bin/sh
echo "$@" >> "$SCONTROL_LOG"
"""


def test_a_job_that_slurm_preempts_resumes_by_itself(tmp_path: Path) -> None:
    """Two srun tasks get SIGUSR1 and restart; the history equals that of an undisturbed job."""
    fake = tmp_path / "bin" / "scontrol"
    fake.parent.mkdir()
    fake.write_text(SCONTROL)
    fake.chmod(0o755)
    overrides = (*TEXTS, "trainer=cpu", "trainer.strategy=ddp")
    requests = tmp_path / "asked"

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
            "SCONTROL_LOG": str(requests),
        }
        tasks = [{"SLURM_PROCID": str(rank), "SLURM_LOCALID": str(rank)} for rank in range(2)]
        program = pausing if pause else "train.py"
        environments = [{**step, "MASTER_PORT": port, **task, **more} for task in tasks]
        return [
            start(*pause, *overrides, program=program, cwd=tmp_path, **environment)
            for environment in environments
        ]

    port = str(free_port())
    tasks = srun("1", 1, 0)
    folder = tmp_path / "runs" / "sample_text" / "slurm_1"
    wait_for(lambda: (folder / "checkpoints" / "last.ckpt").exists(), tasks[0])
    for task in tasks:
        task.send_signal(signal.SIGUSR1)
    assert [code for code, _, _ in map(ended, tasks)] == [138, 138]
    assert RunFolder(folder).read_json("status.json")["state"] == "interrupted"
    assert requests.read_text() == "requeue 1\n"  # by one of the tasks
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
