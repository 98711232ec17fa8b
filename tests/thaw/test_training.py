"""`thaw.train`: many runs in one process, and errors that are raised."""

import asyncio
import logging
import signal
import sys
import threading
from pathlib import Path
from typing import Any

import hydra
import pytest
import torch
from hydra.core.global_hydra import GlobalHydra
from hydra.core.hydra_config import HydraConfig

import thaw
from engine import launch
from engine.processes.outcome import errors_for_python
from engine.processes.signals import InterruptedRunError
from run_folders.run_folder import RunFolder
from tests.processes import ROOT
from tests.thaw.runs import TEXTS


@pytest.fixture(autouse=True)
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Work in an empty folder, with a command line that cannot be read."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "argv", None)
    return tmp_path


def test_five_runs_in_one_process(place: Path, caplog: pytest.LogCaptureFixture) -> None:
    """In the main thread, in two threads at once, and inside of a running event loop."""
    root = logging.getLogger()
    deterministic = torch.are_deterministic_algorithms_enabled()
    before = root.handlers[:], root.level, signal.getsignal(signal.SIGINT)
    runs = [thaw.train(*TEXTS), thaw.train(*TEXTS)]
    failures: list[BaseException] = []

    def in_thread(seed: int) -> None:
        try:
            runs.append(thaw.train(*TEXTS, f"seed={seed}"))
        except BaseException as error:
            failures.append(error)

    threads = [threading.Thread(target=in_thread, args=[seed]) for seed in (1, 2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    async def in_loop() -> thaw.Run:
        return thaw.train(*TEXTS)

    runs.append(asyncio.run(in_loop()))
    assert not failures
    assert (root.handlers, root.level, signal.getsignal(signal.SIGINT)) == before
    assert not GlobalHydra.instance().is_initialized()
    assert torch.are_deterministic_algorithms_enabled() == deterministic
    assert sorted(run.folder for run in runs) == sorted((place / "runs/sample_text").iterdir())
    losses = {run.metrics["test"]["loss"] for run in runs}
    assert len(losses) == 2  # of two seeds
    for run in runs:
        assert RunFolder(run.folder).state == "finished"
        log = (run.folder / "train.log").read_text()
        assert log.count("epoch 0 of 1") == 1  # no line of another run
        assert " INFO " in log
    assert "epoch 0 of 1" in caplog.text


def test_a_changed_config_of_the_working_directory_is_read_again(place: Path) -> None:
    file = place / "configs" / "experiment" / "own.yaml"
    file.parent.mkdir(parents=True)
    for key in ("lr", "backbone_lr"):
        file.write_text(f"# @package _global_\nmodel:\n  {key}: -1\n")
        with pytest.raises(thaw.UserError, match=rf"model\.{key} \(configs/experiment/own\.yaml\)"):
            thaw.train("experiment=own", *TEXTS)


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("modle.lr=1", "unknown key 'modle.lr'"),
        ("experiment=nothing", "configs/experiment/ has no 'nothing'"),
        ("model.lr=-1", r"model\.lr \(the command line\): received -1; at least 0 is needed"),
        ("seed=1,2", "Ambiguous value for argument 'seed=1,2'"),
        ("-m", "-m: thaw.train runs one job; type `thaw train ...` in a shell"),
        ("--config-dir=x", "--config-dir=x: thaw.train runs one job"),
        ("hydra.mode=MULTIRUN", "thaw.train runs one job"),
        ("sweep.resume=x", "thaw.train runs one job"),
        ("plan=true", "in a shell for a plan"),
        ("hydra.verbose=true", "the module logging decides"),
        ("hydra.callbacks=null", "Thaw's callback chooses the folders"),
        (3, "received 3; an override is a text such as 'seed=2'"),
    ],
)
def test_errors_are_raised_and_nothing_is_left(place: Path, override: Any, message: str) -> None:
    with pytest.raises(thaw.UserError, match=message) as error:
        thaw.train(*TEXTS, override)
    assert "Traceback" not in str(error.value)
    assert not list(place.rglob("*.ckpt"))


def test_an_error_of_the_run_is_raised_and_recorded(place: Path) -> None:
    folder = place / "run"
    with pytest.raises(thaw.UserError, match="two or more classes are needed") as error:
        thaw.train(*TEXTS, "data.classes=[fake]", "data.num_classes=1", f"hydra.run.dir={folder}")
    assert RunFolder(folder).read_json("status.json")["error"] == str(error.value)


@pytest.mark.parametrize(
    ("signum", "raised"), [(signal.SIGINT, KeyboardInterrupt), (signal.SIGTERM, SystemExit)]
)
def test_signals_raise_what_python_raises(
    signum: int, raised: type[BaseException], monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupted(*_: object) -> None:
        raise InterruptedRunError(signum)

    monkeypatch.setattr(launch, "_job", interrupted)
    with pytest.raises(raised, match="stopped by SIGINT" if signum == signal.SIGINT else "143"):
        thaw.train(*TEXTS)


def test_a_second_interrupt_does_not_end_the_program(request: pytest.FixtureRequest) -> None:
    # A worker of the tests ignores the signal.
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    request.addfinalizer(lambda: signal.signal(signal.SIGINT, before))
    seen: list[type[BaseException]] = []

    def interrupt() -> None:
        try:
            signal.raise_signal(signal.SIGINT)
        except BaseException as error:
            seen.append(type(error))

    with errors_for_python():
        interrupt()
        interrupt()
    assert seen == [InterruptedRunError, KeyboardInterrupt]


def test_an_application_of_hydra_gets_its_state_back(place: Path) -> None:
    with hydra.initialize_config_dir(str(ROOT / "configs" / "hydra"), version_base="1.3"):
        outer = GlobalHydra.instance().hydra
        HydraConfig.instance().cfg = None
        thaw.train(*TEXTS)
        assert GlobalHydra.instance().hydra is outer
        assert HydraConfig.instance().cfg is None
