"""Which of several processes is reported, where more than one fails."""

import logging
import os
import signal
import subprocess
import sys
import threading
from pathlib import Path

import pytest
from omegaconf import OmegaConf

import engine.processes.first_failure
import engine.processes.supervisor
from engine.processes.first_failure import (
    FailedElsewhereError,
    error_file,
    first_failure,
    reporting_first_failure,
)
from engine.processes.outcome import ERROR_FILE, report_failure
from engine.processes.ranks import SUPERVISOR, add_rank
from engine.processes.signals import InterruptedRunError
from engine.processes.slurm import requeue_after
from engine.processes.supervisor import Processes
from engine.recording import recording_end
from lightning_modules.callbacks.pruning import PrunedRunError
from run_folders.run_folder import RunFolder

LOST = "[../third_party/gloo/gloo/transport/tcp/pair.cc:553] Connection closed by peer [127.0.0.1]:41253"
CFG = OmegaConf.create({"plan": False})


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> RunFolder:
    """Of a run on two processes that torchrun started; this is rank 0, and none waits for the others."""
    monkeypatch.setattr(engine.processes.first_failure, "_ERROR_FILES_TIMEOUT", 0.0)
    be_rank(0, monkeypatch)
    made = RunFolder(tmp_path)
    made.write_status("running", "fit")
    return made


def be_rank(rank: int, monkeypatch: pytest.MonkeyPatch) -> None:
    for key, value in {"RANK": str(rank), "LOCAL_RANK": str(rank), "WORLD_SIZE": "2"}.items():
        monkeypatch.setenv(key, value)


def leave(folder: RunFolder | Path, rank: int, words: str, stamp: float = 1.0) -> None:
    path = error_file(folder.path if isinstance(folder, RunFolder) else folder, rank)
    path.write_text(words)
    os.utime(path, (stamp, stamp))


def fail(folder: RunFolder, error: Exception) -> None:
    with recording_end(CFG, folder):
        raise error


def error_of(folder: RunFolder) -> str:
    status = folder.read_json("status.json")
    assert status["state"] == "failed"
    return str(status["error"])


def test_the_earliest_time_stamp_is_the_first_failure(tmp_path: Path) -> None:
    leave(tmp_path, 0, f"RuntimeError: {LOST}", 3.0)
    leave(tmp_path, 2, "rank 2: disk on fire", 2.0)
    leave(tmp_path, 1, f"rank 1: RuntimeError: {LOST}", 4.0)
    error_file(tmp_path, 3).symlink_to(
        tmp_path / "gone"
    )  # one that its process removed after the files were listed
    assert first_failure(tmp_path, 4) == "rank 2: disk on fire"


def test_what_all_processes_find_is_told_in_the_words_of_rank_0(tmp_path: Path) -> None:
    leave(tmp_path, 0, "data.batch_size: received 1", 3.0)
    leave(tmp_path, 1, "rank 1: data.batch_size: received 1", 2.0)
    assert first_failure(tmp_path, 2) == "data.batch_size: received 1"


def test_a_process_that_failed_later_says_that_another_failed_first(folder: RunFolder) -> None:
    leave(folder, 1, "rank 1: disk on fire")
    with pytest.raises(
        FailedElsewhereError, match=r"^another process failed first: rank 1: disk on fire$"
    ):
        fail(folder, RuntimeError(LOST))
    assert error_of(folder) == "rank 1: disk on fire"
    assert not error_file(folder.path, 0).exists()


def test_an_error_that_another_process_has_recorded_stays(folder: RunFolder) -> None:
    """Its own error file is gone by then."""

    def lose() -> None:
        with reporting_first_failure(folder, PrunedRunError):
            folder.write_status("failed", "fit", "rank 1: disk on fire")
            raise RuntimeError(LOST)

    with pytest.raises(
        FailedElsewhereError, match=r"^another process failed first: rank 1: disk on fire$"
    ):
        lose()
    assert error_of(folder) == "rank 1: disk on fire"


def test_the_error_of_a_run_that_goes_on_is_not_that_of_another_process(folder: RunFolder) -> None:
    folder.write_status("failed", "fit", "rank 1: disk on fire")
    with pytest.raises(KeyError):
        fail(folder, KeyError("label"))


def test_a_process_waits_until_all_have_left_their_errors(
    folder: RunFolder, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(engine.processes.first_failure, "_ERROR_FILES_TIMEOUT", 60.0)
    be_rank(1, monkeypatch)
    other = threading.Timer(0.2, leave, (folder, 0, "data.batch_size: received 1", 1.0))
    other.start()
    with pytest.raises(
        FailedElsewhereError, match=r"^another process failed first: data.batch_size: received 1$"
    ):
        fail(folder, ValueError("too small"))
    other.join()


def test_where_no_other_process_left_an_error_the_loss_itself_is_told(folder: RunFolder) -> None:
    with pytest.raises(RuntimeError, match="Connection closed by peer") as caught:
        fail(folder, RuntimeError(LOST))
    unsure = "another process may have failed first: see the logs of the other ranks"
    assert error_of(folder) == f"rank 0: RuntimeError: {LOST}; {unsure}"
    assert caught.value.__notes__ == [unsure]


def test_the_log_of_a_process_that_failed_later_has_its_own_error(
    folder: RunFolder, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    be_rank(1, monkeypatch)
    leave(folder, 0, "disk on fire", 1.0)
    file = logging.FileHandler(tmp_path / "rank1.log")
    logging.getLogger().addHandler(file)
    try:
        with pytest.raises(FailedElsewhereError):
            fail(folder, KeyError("label"))
    finally:
        logging.getLogger().removeHandler(file)
        file.close()
    logged = (tmp_path / "rank1.log").read_text()
    assert "Traceback" in logged
    assert logged.endswith("KeyError: 'label'\n")


def test_an_error_of_its_own_stays_as_it_is(
    folder: RunFolder, monkeypatch: pytest.MonkeyPatch
) -> None:
    be_rank(1, monkeypatch)
    with pytest.raises(KeyError):
        fail(folder, KeyError("label"))
    assert error_of(folder) == "rank 1: KeyError: 'label'"
    assert not error_file(folder.path, 1).exists()
    assert add_rank("disk on fire") == "rank 1: disk on fire"
    be_rank(0, monkeypatch)
    assert add_rank("disk on fire") == "disk on fire"


def test_an_error_of_an_attempt_before_is_forgotten(folder: RunFolder) -> None:
    leave(folder, 0, "disk on fire")
    with reporting_first_failure(folder, PrunedRunError):
        assert not error_file(folder.path, 0).exists()


def test_a_signal_and_what_a_search_gave_up_are_no_failures(
    folder: RunFolder, monkeypatch: pytest.MonkeyPatch
) -> None:
    """They stop all processes; only a failure belongs to one."""
    be_rank(1, monkeypatch)
    with pytest.raises(InterruptedRunError), recording_end(CFG, folder):
        raise InterruptedRunError(signal.SIGTERM)
    assert folder.read_json("status.json")["error"] == "stopped by SIGTERM"
    folder.write_status("running", "fit")
    with pytest.raises(PrunedRunError):
        fail(folder, PrunedRunError("pruned after epoch 1"))
    assert folder.read_json("status.json")["state"] == "pruned"


def test_a_supervised_process_leaves_its_error_and_the_verdict_to_the_supervisor(
    folder: RunFolder, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    be_rank(1, monkeypatch)
    monkeypatch.setenv(SUPERVISOR, str(os.getpid()))
    own = error_file(tmp_path / "errors", 1)
    monkeypatch.setenv(ERROR_FILE, str(own))
    with report_failure() as outcome:
        fail(folder, KeyError("label"))
    assert outcome.code == 1
    assert own.read_text() == "rank 1: KeyError: 'label'"
    assert folder.read_json("status.json")["state"] == "running"
    leave(own.parent, 0, "disk on fire")
    with report_failure():  # what is printed last is not the first failure
        fail(folder, RuntimeError(LOST))
    assert own.read_text() == f"rank 1: RuntimeError: {LOST}"


# Rank 1 ends, and rank 0, which notices that by a lock that is free again, fails of that.
DIES = f"""
import fcntl, os, signal, sys, time
from pathlib import Path
from run_folders.files import write_text
own, lock, ready = Path(os.environ[{ERROR_FILE!r}]), open(sys.argv[1] + "/lock", "w"), Path(sys.argv[1], "ready")
if os.environ["RANK"] == "1":
    fcntl.flock(lock, fcntl.LOCK_EX)
    ready.touch()
    {{}}
while not ready.exists():
    time.sleep(0.02)
fcntl.flock(lock, fcntl.LOCK_EX)
time.sleep(0.1)  # a file system's clock is coarser than the process's
write_text(own, "RuntimeError: connection closed")
sys.exit(1)
"""


@pytest.mark.parametrize(
    ("end", "told"),
    [
        ("os.kill(os.getpid(), signal.SIGKILL)", "rank 1 was killed by SIGKILL; see {}"),
        ("os._exit(3)", "rank 1 ended with exit code 3; see {}"),
        ("write_text(own, 'rank 1: disk on fire'); sys.exit(1)", "rank 1: disk on fire"),
    ],
)
def test_the_supervisor_knows_who_died_first(
    end: str, told: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(
        engine.processes.supervisor, "_POLL", 1.0
    )  # it sees the end of rank 1 later than rank 0 does
    folder = RunFolder(tmp_path)
    folder.write_status("running", "fit")
    error = Processes([sys.executable, "-c", DIES.format(end), str(tmp_path)], 2, 1, folder).run()
    assert error == told.format(tmp_path / "rank1.log")
    assert error_of(folder) == error
    assert not (tmp_path / "rank1.log").exists()  # it said nothing


@pytest.mark.parametrize(
    ("signum", "rank", "asked"),
    [(signal.SIGUSR1, "0", 1), (signal.SIGUSR1, "1", 0), (signal.SIGTERM, "0", 0)],
)
def test_only_the_first_process_asks_slurm_to_queue_the_job_again(
    signum: signal.Signals,
    rank: str,
    asked: int,
    folder: RunFolder,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    calls: list[list[str]] = []
    monkeypatch.setattr(subprocess, "run", lambda words, **_: calls.append(words))
    for key, value in {"RANK": rank, "SLURM_JOB_ID": "4711", "SLURM_STEP_ID": "0"}.items():
        monkeypatch.setenv(key, value)
    requeue_after(InterruptedRunError(signum))
    assert calls == [["scontrol", "requeue", "4711"]] * asked


def test_a_job_that_cannot_be_queued_again_says_what_to_do(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, tmp_path: Path
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    for key, value in {"SLURM_JOB_ID": "4711", "SLURM_STEP_ID": "0"}.items():
        monkeypatch.setenv(key, value)
    requeue_after(InterruptedRunError(signal.SIGUSR1))
    assert "could not requeue job 4711" in caplog.text
    assert "ckpt_path=last" in caplog.text
