"""Which error is reported when several processes fail."""

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
    """The run folder of two torchrun processes; this one is rank 0 and does not wait."""
    monkeypatch.setattr(engine.processes.first_failure, "_ERROR_FILES_TIMEOUT", 0.0)
    set_rank(0, monkeypatch)
    made = RunFolder(tmp_path)
    made.write_status("running", "fit")
    return made


def set_rank(rank: int, monkeypatch: pytest.MonkeyPatch) -> None:
    for key, value in {"RANK": str(rank), "LOCAL_RANK": str(rank), "WORLD_SIZE": "2"}.items():
        monkeypatch.setenv(key, value)


def write_error(folder: RunFolder | Path, rank: int, message: str, modified: float = 1.0) -> None:
    path = error_file(folder.path if isinstance(folder, RunFolder) else folder, rank)
    path.write_text(message)
    os.utime(path, (modified, modified))


def fail(folder: RunFolder, error: Exception) -> None:
    with recording_end(CFG, folder):
        raise error


def error_of(folder: RunFolder) -> str:
    status = folder.read_json("status.json")
    assert status["state"] == "failed"
    return str(status["error"])


def test_the_earliest_time_stamp_is_the_first_failure(tmp_path: Path) -> None:
    write_error(tmp_path, 0, f"RuntimeError: {LOST}", 3.0)
    write_error(tmp_path, 2, "rank 2: disk on fire", 2.0)
    write_error(tmp_path, 1, f"rank 1: RuntimeError: {LOST}", 4.0)
    error_file(tmp_path, 3).symlink_to(
        tmp_path / "gone"
    )  # a file that its process removed after it was listed
    assert first_failure(tmp_path, 4) == "rank 2: disk on fire"


def test_an_error_of_all_processes_is_reported_without_a_rank(tmp_path: Path) -> None:
    write_error(tmp_path, 0, "data.batch_size: received 1", 3.0)
    write_error(tmp_path, 1, "rank 1: data.batch_size: received 1", 2.0)
    assert first_failure(tmp_path, 2) == "data.batch_size: received 1"


def test_a_process_that_failed_later_reports_the_first_failure(folder: RunFolder) -> None:
    write_error(folder, 1, "rank 1: disk on fire")
    with pytest.raises(
        FailedElsewhereError, match=r"^another process failed first: rank 1: disk on fire$"
    ):
        fail(folder, RuntimeError(LOST))
    assert error_of(folder) == "rank 1: disk on fire"
    assert not error_file(folder.path, 0).exists()


def test_an_error_that_another_process_has_recorded_stays(folder: RunFolder) -> None:
    """That process has already removed its error file."""

    def lose_connection() -> None:
        with reporting_first_failure(folder, PrunedRunError):
            folder.write_status("failed", "fit", "rank 1: disk on fire")
            raise RuntimeError(LOST)

    with pytest.raises(
        FailedElsewhereError, match=r"^another process failed first: rank 1: disk on fire$"
    ):
        lose_connection()
    assert error_of(folder) == "rank 1: disk on fire"


def test_the_old_error_of_a_resumed_run_is_not_that_of_another_process(folder: RunFolder) -> None:
    folder.write_status("failed", "fit", "rank 1: disk on fire")
    with pytest.raises(KeyError):
        fail(folder, KeyError("label"))


def test_a_process_waits_until_all_have_written_their_errors(
    folder: RunFolder, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(engine.processes.first_failure, "_ERROR_FILES_TIMEOUT", 60.0)
    set_rank(1, monkeypatch)
    other = threading.Timer(0.2, write_error, (folder, 0, "data.batch_size: received 1", 1.0))
    other.start()
    with pytest.raises(
        FailedElsewhereError, match=r"^another process failed first: data.batch_size: received 1$"
    ):
        fail(folder, ValueError("too small"))
    other.join()


def test_a_lost_connection_is_reported_if_no_other_process_wrote_an_error(
    folder: RunFolder,
) -> None:
    with pytest.raises(RuntimeError, match="Connection closed by peer") as caught:
        fail(folder, RuntimeError(LOST))
    unsure = "another process may have failed first: see the logs of the other ranks"
    assert error_of(folder) == f"rank 0: RuntimeError: {LOST}; {unsure}"
    assert caught.value.__notes__ == [unsure]


def test_the_log_of_a_process_that_failed_later_has_its_own_error(
    folder: RunFolder, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    set_rank(1, monkeypatch)
    write_error(folder, 0, "disk on fire", 1.0)
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


def test_an_error_of_one_process_only_is_raised_unchanged(
    folder: RunFolder, monkeypatch: pytest.MonkeyPatch
) -> None:
    set_rank(1, monkeypatch)
    with pytest.raises(KeyError):
        fail(folder, KeyError("label"))
    assert error_of(folder) == "rank 1: KeyError: 'label'"
    assert not error_file(folder.path, 1).exists()
    assert add_rank("disk on fire") == "rank 1: disk on fire"
    set_rank(0, monkeypatch)
    assert add_rank("disk on fire") == "disk on fire"


def test_the_error_file_of_an_earlier_attempt_is_removed(folder: RunFolder) -> None:
    write_error(folder, 0, "disk on fire")
    with reporting_first_failure(folder, PrunedRunError):
        assert not error_file(folder.path, 0).exists()


def test_a_signal_and_a_pruned_trial_are_not_failures(
    folder: RunFolder, monkeypatch: pytest.MonkeyPatch
) -> None:
    """They end all processes; a failure begins in one of them."""
    set_rank(1, monkeypatch)
    with pytest.raises(InterruptedRunError), recording_end(CFG, folder):
        raise InterruptedRunError(signal.SIGTERM)
    assert folder.read_json("status.json")["error"] == "stopped by SIGTERM"
    folder.write_status("running", "fit")
    with pytest.raises(PrunedRunError):
        fail(folder, PrunedRunError("pruned after epoch 1"))
    assert folder.read_json("status.json")["state"] == "pruned"


def test_a_supervised_process_writes_its_error_file_but_not_the_status(
    folder: RunFolder, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    set_rank(1, monkeypatch)
    monkeypatch.setenv(SUPERVISOR, str(os.getpid()))
    own = error_file(tmp_path / "errors", 1)
    monkeypatch.setenv(ERROR_FILE, str(own))
    with report_failure() as outcome:
        fail(folder, KeyError("label"))
    assert outcome.code == 1
    assert own.read_text() == "rank 1: KeyError: 'label'"
    assert folder.read_json("status.json")["state"] == "running"
    write_error(own.parent, 0, "disk on fire")
    with report_failure():  # the file keeps this process's own error
        fail(folder, RuntimeError(LOST))
    assert own.read_text() == f"rank 1: RuntimeError: {LOST}"


# Rank 1 ends, which frees a lock; rank 0 waits for the lock and then fails.
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
    ("end", "expected"),
    [
        ("os.kill(os.getpid(), signal.SIGKILL)", "rank 1 was killed by SIGKILL; see {}"),
        ("os._exit(3)", "rank 1 ended with exit code 3; see {}"),
        ("write_text(own, 'rank 1: disk on fire'); sys.exit(1)", "rank 1: disk on fire"),
    ],
)
def test_the_supervisor_reports_the_process_that_ended_first(
    end: str, expected: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(
        engine.processes.supervisor, "_POLL", 1.0
    )  # it sees the end of rank 1 later than rank 0 does
    folder = RunFolder(tmp_path)
    folder.write_status("running", "fit")
    error = Processes([sys.executable, "-c", DIES.format(end), str(tmp_path)], 2, 1, folder).run()
    assert error == expected.format(tmp_path / "rank1.log")
    assert error_of(folder) == error
    assert not (tmp_path / "rank1.log").exists()  # it had no output


@pytest.mark.parametrize(
    ("signum", "rank", "requeues"),
    [(signal.SIGUSR1, "0", 1), (signal.SIGUSR1, "1", 0), (signal.SIGTERM, "0", 0)],
)
def test_only_rank_0_requeues_the_job(
    signum: signal.Signals,
    rank: str,
    requeues: int,
    folder: RunFolder,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    calls: list[list[str]] = []
    monkeypatch.setattr(subprocess, "run", lambda command, **_: calls.append(command))
    for key, value in {"RANK": rank, "SLURM_JOB_ID": "4711", "SLURM_STEP_ID": "0"}.items():
        monkeypatch.setenv(key, value)
    requeue_after(InterruptedRunError(signum))
    assert calls == [["scontrol", "requeue", "4711"]] * requeues


def test_a_failed_requeue_is_logged_with_advice(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, tmp_path: Path
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    for key, value in {"SLURM_JOB_ID": "4711", "SLURM_STEP_ID": "0"}.items():
        monkeypatch.setenv(key, value)
    requeue_after(InterruptedRunError(signal.SIGUSR1))
    assert "could not requeue job 4711" in caplog.text
    assert "ckpt_path=last" in caplog.text
