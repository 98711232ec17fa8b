"""Which of several processes is told of, where more than one fails."""

import signal
import subprocess
import threading
import time
from pathlib import Path

import pytest
from omegaconf import OmegaConf

import engine.peers
from engine.interrupts import InterruptedRunError
from engine.peers import PeerFailedError, has_lost_a_peer, in_company, own_words
from engine.recording import recorded
from engine.run_folder import RunFolder
from engine.slurm import requeue_after

GLOO = "[../third_party/gloo/gloo/transport/tcp/pair.cc:553] Connection closed by peer [127.0.0.1]:41253"


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> RunFolder:
    """Of a run on two processes, of which this is rank 0."""
    for key, value in {"RANK": "0", "LOCAL_RANK": "0", "WORLD_SIZE": "2"}.items():
        monkeypatch.setenv(key, value)
    made = RunFolder(tmp_path)
    made.write_status("running", "fit")
    return made


def test_the_loss_of_a_peer_is_told_from_an_error_of_its_own() -> None:
    assert has_lost_a_peer(RuntimeError(GLOO))
    assert has_lost_a_peer(RuntimeError("NCCL watchdog thread terminated with exception"))
    assert not has_lost_a_peer(RuntimeError("NCCL error: out of memory"))
    assert not has_lost_a_peer(RuntimeError("DataLoader timed out after 5 seconds"))
    assert not has_lost_a_peer(RuntimeError("mat1 and mat2 shapes cannot be multiplied"))
    assert not has_lost_a_peer(ConnectionResetError("connection reset by peer"))  # a dataset's


def test_a_process_that_lost_another_says_what_that_one_wrote(folder: RunFolder) -> None:
    def fail_elsewhere() -> None:
        time.sleep(0.3)
        folder.write_status("failed", "fit", "rank 1: disk on fire")

    other = threading.Thread(target=fail_elsewhere)
    other.start()
    with pytest.raises(PeerFailedError, match=r"^rank 1: disk on fire$"), in_company(folder):
        raise RuntimeError(GLOO)
    other.join()


def test_where_no_process_says_why_the_loss_itself_is_told(folder: RunFolder, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(engine.peers, "_FOR_A_PEER", 0.2)
    with pytest.raises(PeerFailedError, match=r"ended without saying why .*Connection closed by peer"), in_company(folder):
        raise RuntimeError(GLOO)


def test_an_error_of_its_own_stays_as_it_is(folder: RunFolder, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(KeyError), in_company(folder):
        raise KeyError("label")
    assert own_words("disk on fire") == "disk on fire"
    monkeypatch.setenv("RANK", "3")
    assert own_words("disk on fire") == "rank 3: disk on fire"


def test_a_signal_is_told_alike_by_whichever_process_is_first_to(folder: RunFolder, monkeypatch: pytest.MonkeyPatch) -> None:
    """It stops all of them; only a failure belongs to one."""
    monkeypatch.setenv("RANK", "1")
    monkeypatch.setattr(engine.peers, "_FOR_THE_FIRST", 0.1)
    with pytest.raises(InterruptedRunError), recorded(OmegaConf.create({"plan": False}), folder):
        raise InterruptedRunError(signal.SIGTERM)
    assert folder.read_json("status.json")["error"] == "stopped by SIGTERM"
    folder.write_status("running", "fit")
    with pytest.raises(KeyError), recorded(OmegaConf.create({"plan": False}), folder):
        raise KeyError("label")
    assert folder.read_json("status.json")["error"] == "rank 1: KeyError: 'label'"


@pytest.mark.parametrize(
    ("signum", "rank", "asked"), [(signal.SIGUSR1, "0", 1), (signal.SIGUSR1, "1", 0), (signal.SIGTERM, "0", 0)]
)
def test_only_the_first_process_asks_slurm_to_queue_the_job_again(
    signum: signal.Signals, rank: str, asked: int, folder: RunFolder, monkeypatch: pytest.MonkeyPatch
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
