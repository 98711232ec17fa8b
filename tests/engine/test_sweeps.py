"""Sweeps through the real entry point.

Every job is recorded, failed jobs are reported, and interrupted jobs are resumed.
"""

import csv
import json
import signal
import sys
from pathlib import Path

import pytest

from engine.sweeps.resuming import redact_sweep_record
from lightning_modules.base import Task
from run_folders.own_packages import VARIABLE
from run_folders.run_folder import RunFolder
from run_folders.sweep import Sweep
from run_folders.sweep_job import read_job
from run_folders.untrusted import DamagedFileError
from tests.conftest import SAMPLE, Train
from tests.engine.conftest import RunSweep
from tests.pausing import pausing
from tests.processes import ended, run_cold, start, wait_for

TINY = (*SAMPLE, "trainer.accelerator=cpu", "trainer.max_epochs=1")


def states(folder: Path) -> list[str]:
    return [job.state for job in Sweep(folder).jobs()]


def rows(folder: Path) -> list[dict[str, str]]:
    with (folder / "sweep.csv").open(newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


def history(folder: Path) -> list[dict[str, str]]:
    return [
        {k: v for k, v in row.items() if "second" not in k}
        for row in RunFolder(folder).read_history()
    ]


def test_a_failed_job_does_not_stop_others_and_runs_again(sweep: RunSweep) -> None:
    ended = sweep(*TINY, "model.lr=1e-3,1e38", "seed=1,2")
    folder = ended.folder
    assert ended.code == 1
    assert states(folder) == ["finished", "finished", "failed", "failed"]
    assert "2 of 4 jobs failed" in ended.error
    assert "job 2 (model.lr=1e+38 seed=1): the training loss is nan in epoch 0" in ended.error
    assert "Traceback" not in ended.err
    for text in (
        "job",
        "state",
        "overrides",
        "val/acc",
        "test/acc",
        "seconds",
        f"sweep.resume={folder}",
    ):
        assert text in ended.out
    table = rows(folder)
    assert [row["state"] for row in table] == states(folder)
    assert [(row["seed"], float(row["model.lr"])) for row in table] == [
        ("1", 1e-3),
        ("2", 1e-3),
        ("1", 1e38),
        ("2", 1e38),
    ]
    assert (
        float(table[0]["test/acc"])
        == RunFolder(folder / "0").read_json("metrics.json")["test"]["acc"]
    )
    assert "nan" in table[2]["error"]
    page = (folder / "sweep.html").read_text(encoding="utf-8")
    assert "Job 2 failed: the training loss is nan" in page
    assert page.count("finished") >= 2

    before = {job: (folder / job / "metrics.json").stat().st_mtime_ns for job in ("0", "1")}
    again = sweep(f"sweep.resume={folder}")
    assert again.code == 1  # the same jobs fail again
    assert {job: (folder / job / "metrics.json").stat().st_mtime_ns for job in before} == before
    assert states(folder) == ["finished", "finished", "failed", "failed"]
    assert (folder / "2_attempt_1" / "status.json").is_file()
    assert "job 0 is finished already" in again.err

    better = sweep(f"sweep.resume={folder}", "model.lr=1e-3,1e-2")
    assert better.code == 0, better.err
    assert states(folder) == ["finished"] * 4
    assert [float(row["model.lr"]) for row in rows(folder)] == [1e-3, 1e-3, 1e-2, 1e-2]
    assert "job 0 was run with" not in better.err
    assert "Job 2 failed" not in (folder / "sweep.html").read_text(encoding="utf-8")
    other = sweep(f"sweep.resume={folder}", "model.lr=1e-4,1e-2")
    assert other.code == 0
    assert (
        "job 0 keeps its result: it ran with model.lr=0.001 and now has model.lr=0.0001; start a new sweep"
        in other.err
    )


def test_an_invalid_config_is_one_failed_job(sweep: RunSweep) -> None:
    ended = sweep(*TINY, "model.head.dropout=0.1,2.0")
    assert ended.code == 1
    assert states(ended.folder) == ["finished", "failed"]
    assert "model.head.dropout (the command line): received 2.0" in ended.error


def test_an_interrupted_sweep_can_be_resumed(sweep: RunSweep, tmp_path: Path) -> None:
    overrides = [*TINY, "trainer.max_epochs=3", "seed=1,2,3"]
    folder = tmp_path / "sweep"
    process = start(
        2, 1, "-m", *overrides, f"hydra.sweep.dir={folder}", program=pausing, cwd=tmp_path
    )
    second = RunFolder(folder / "1")
    wait_for(lambda: len(second.read_history()) == 2 and second.last_checkpoint.is_file(), process)
    process.send_signal(signal.SIGTERM)
    code, _, errors = ended(process)
    assert code == 143
    assert "stopped by SIGTERM" in errors
    assert states(folder) == ["finished", "interrupted"]
    assert [row["state"] for row in rows(folder)] == ["finished", "interrupted"]
    done = (folder / "0" / "metrics.json").stat().st_mtime_ns
    began = RunFolder(folder / "1").read_json("status.json")["started"]
    assert sweep(f"sweep.resume={folder}").code == 0
    assert states(folder) == ["finished"] * 3
    assert (folder / "0" / "metrics.json").stat().st_mtime_ns == done
    assert RunFolder(folder / "1").read_json("status.json")["started"] == began
    assert "resumed" in RunFolder(folder / "1").read_json("provenance.json")
    alone = sweep(*overrides, "seed=2", f"hydra.sweep.dir={tmp_path / 'alone'}")
    assert alone.code == 0
    assert history(folder / "1") == history(tmp_path / "alone" / "0")


def test_a_folder_that_is_not_a_sweep_cannot_be_resumed(sweep: RunSweep, tmp_path: Path) -> None:
    ended = sweep(f"sweep.resume={tmp_path / 'nothing'}")
    assert ended.code == 1
    assert "this is not the folder of a sweep (it has no sweep.json)" in ended.error
    assert not (tmp_path / "nothing").exists()


def test_a_plan_creates_no_folder(sweep: RunSweep) -> None:
    ended = sweep(*TINY, "seed=1,2", "plan=true")
    assert ended.code == 0, ended.err
    assert ended.out.count("samples: train 96") == 2
    assert not ended.folder.exists()


@pytest.mark.parametrize(
    "launcher",
    [
        "joblib",
        pytest.param("submitit_local", marks=pytest.mark.extra("slurm")),
        pytest.param("ray", marks=pytest.mark.extra("ray")),
    ],
)
def test_jobs_run_under_other_launchers(
    launcher: str, tmp_path: Path, tiny_backbone: Path, covid_dir: Path
) -> None:
    """Each job runs in its own process; one job fails, the other writes its report."""
    more = {
        "joblib": ["hydra.launcher.n_jobs=2"],
        "submitit_local": ["hydra.launcher.timeout_min=5"],
        "ray": [
            "+hydra.launcher.ray.init.num_cpus=2",
            "+hydra.launcher.ray.init.include_dashboard=false",
        ],
    }[launcher]
    overrides = [
        "experiment=bert_feature", f"model.backbone={tiny_backbone}", f"paths.data_dir={covid_dir}", "trainer.max_epochs=1",
        "trainer.accelerator=cpu", "data.batch_size=16", "model.lr=1e38,1e-3", "+callbacks.keyed.api_key=SUPERSECRET",
        "+callbacks.keyed._target_=tests.engine.test_redaction.KeyedCallback", f"hydra/launcher={launcher}", *more,
    ]  # fmt: skip
    for _ in range(3):
        code, _, errors = run_cold("-m", *overrides, cwd=tmp_path, **{VARIABLE: "tests"})
        # Ray waits half a minute for its servers, which is too short on a busy machine.
        if "timed out during startup" not in errors:
            break
    assert code == 1, errors
    found = list((tmp_path / "runs" / "sweeps").glob("bert_feature/*"))
    assert len(found) == 1, errors
    (folder,) = found
    assert states(folder) == ["failed", "finished"], errors
    assert "job 0 (model.lr=1e+38): the training loss is nan" in errors
    assert (folder / "1" / "report.html").is_file()
    assert [row["state"] for row in rows(folder)] == ["failed", "finished"]
    assert not [
        p.name for p in folder.rglob("*") if p.is_file() and b"SUPERSECRET" in p.read_bytes()
    ]


def test_a_job_that_submitit_preempts_can_be_resumed(
    sweep: RunSweep, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Submitit's signal handler requeues the job and then ends the process from within."""
    overrides = [*TINY, "trainer.max_epochs=3", "seed=1,2"]
    whole = sweep(*overrides, "hydra.sweep.dir=whole")
    with monkeypatch.context() as patch:
        start = Task.on_train_epoch_start

        def preempted(self: Task) -> None:
            start(self)
            if self.current_epoch == 2:
                sys.exit(-1)

        patch.setattr(Task, "on_train_epoch_start", preempted)
        with pytest.raises(SystemExit):
            sweep(*overrides)
    folder = whole.folder
    assert states(folder) == ["interrupted"]
    assert sweep(f"sweep.resume={folder}").code == 0
    assert states(folder) == ["finished"] * 2
    assert not list(folder.glob("*_attempt_*"))
    assert history(folder / "0") == history(folder.parent / "whole" / "0")


def test_a_job_that_still_runs_is_left_alone(sweep: RunSweep) -> None:
    ended = sweep(*TINY, "seed=1,2")
    job = RunFolder(ended.folder / "1")
    job.write_status("running", "fit")
    with job.locked():
        again = sweep(f"sweep.resume={ended.folder}")
        assert again.code == 1
        assert "job 1 (seed=2): running" in again.error
        assert "job 1: still running in another process" in again.err
        assert not (ended.folder / "1_attempt_1").exists()
    assert sweep(f"sweep.resume={ended.folder}").code == 0
    assert states(ended.folder) == ["finished"] * 2


def test_a_job_that_cannot_be_resumed_is_reported_and_not_changed(
    sweep: RunSweep, monkeypatch: pytest.MonkeyPatch
) -> None:
    ended = sweep(*TINY, "seed=1,2")
    job = RunFolder(ended.folder / "1")
    job.write_status("interrupted", "fit", "stopped by SIGTERM")
    again = sweep(f"sweep.resume={ended.folder}", "model.head.hidden=16")
    assert again.code == 1
    assert "1 did not end" in again.error
    assert "began with another config: model.head.hidden was 8 and is 16" in again.error
    assert states(ended.folder) == ["finished", "interrupted"]
    assert job.last_checkpoint.is_file()
    assert sweep(f"sweep.resume={ended.folder}", "model.head.hidden=8").code == 0
    assert states(ended.folder) == ["finished"] * 2


def test_secrets_of_a_sweep_are_not_saved_and_must_be_given_again(
    sweep: RunSweep, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv(VARIABLE, "tests")
    keyed = "+callbacks.keyed={_target_: tests.engine.test_redaction.KeyedCallback, api_key: SUPERSECRET}"
    assert sweep(*TINY, "seed=1,2", keyed).code == 0
    found = [
        p.name
        for p in (tmp_path / "sweep").rglob("*")
        if p.is_file() and b"SUPERSECRET" in p.read_bytes()
    ]
    assert not found
    again = sweep(f"sweep.resume={tmp_path / 'sweep'}")
    assert "callbacks.keyed was not saved because it is secret" in again.err
    # Given again, the secret is not saved either.
    assert sweep(f"sweep.resume={tmp_path / 'sweep'}", keyed).code == 0
    assert not [
        p.name
        for p in (tmp_path / "sweep").rglob("*")
        if p.is_file() and b"SUPERSECRET" in p.read_bytes()
    ]
    overrides = json.loads((tmp_path / "sweep" / "sweep.json").read_text())["words"]
    assert not any("SUPERSECRET" in override for override in overrides)


def test_a_folder_takes_one_sweep(sweep: RunSweep, tmp_path: Path) -> None:
    first = sweep(*TINY, "seed=1,2", "seed=1,1e38")  # a later override replaces an earlier one
    assert first.code == 1
    record = (first.folder / "sweep.json").read_text()
    assert "seed=1,2" not in json.loads(record)["words"]
    second = sweep(*TINY, "seed=7,8,9")
    assert second.code == 1
    assert second.error == (
        f"error: hydra.sweep.dir: {first.folder} holds a sweep already; resume it with "
        "sweep.resume, or set another folder"
    )
    assert (first.folder / "sweep.json").read_text() == record
    into_job = sweep(*TINY, "seed=7,8", f"hydra.sweep.dir={first.folder / '0'}")
    assert "holds runs already; set another folder" in into_job.error
    with RunFolder(first.folder).locked():
        going_on = sweep(f"sweep.resume={first.folder}")
    assert "a run is still going on in it" in going_on.error
    planned = sweep(f"sweep.resume={first.folder}", "model.lr=1e-2", "plan=true")
    assert planned.code == 1  # job 1 has not finished
    assert (
        json.loads((first.folder / "sweep.json").read_text())["words"]
        == json.loads(record)["words"]
    )


def test_the_user_may_name_the_folders_of_jobs(sweep: RunSweep) -> None:
    name = "hydra.sweep.subdir='ü b/${hydra.job.override_dirname}'"
    only = "hydra.job.config.override_dirname.exclude_keys=[data.rows,trainer.max_epochs,\
trainer.accelerator,model.backbone.num_hidden_layers,model.head.hidden]"
    ended = sweep(*TINY, "model.lr=1e38,1e-3", name, only)
    assert ended.code == 1
    assert (
        "1 of 2 jobs failed\n  job ü b/model.lr=1e+38 (model.lr=1e+38): the training" in ended.error
    )
    assert [row["job"] for row in rows(ended.folder)] == [
        "ü b/model.lr=1e+38",
        "ü b/model.lr=0.001",
    ]
    recorded = json.loads((ended.folder / "sweep.json").read_text())["jobs"]
    assert [job["state"] for job in recorded] == ["failed", "finished"]
    page = (ended.folder / "sweep.html").read_text(encoding="utf-8")
    assert 'href="%C3%BC%20b/model.lr%3D0.001/report.html"' in page
    again = sweep(f"sweep.resume={ended.folder}", "model.lr=1e-2,1e-3")
    assert again.code == 1  # the job of the replaced override stays as it was
    assert "job ü b/model.lr=0.001 is finished already" in again.err
    assert [row["state"] for row in rows(ended.folder)] == ["finished", "failed", "finished"]


def test_two_jobs_do_not_share_a_folder(sweep: RunSweep) -> None:
    ended = sweep(*TINY, "seed=1,2", "hydra.sweep.subdir=same")
    assert ended.code == 1
    assert "same is the folder of job 0; add ${hydra.job.num}, so that each job" in ended.err


@pytest.mark.parametrize("name", ["..", "/tmp", "."])
def test_a_job_stays_in_the_folder_of_its_sweep(name: str, sweep: RunSweep) -> None:
    ended = sweep(*TINY, "seed=1,2", f"hydra.sweep.subdir={name}")
    assert ended.code == 1
    assert "is not inside of the sweep's folder" in ended.error


def test_overrides_that_would_be_ignored_are_refused(
    sweep: RunSweep, train: Train, tmp_path: Path
) -> None:
    (tmp_path / "file").touch()  # a sweep without jobs removes its empty folders
    ended = sweep(*TINY, "seed=1,2", "hydra.run.dir=run")
    assert ended.error == (
        "error: hydra.run.dir=run names the folder of a single run; a sweep has hydra.sweep.dir"
    )
    for override in ("hydra.sweep.dir=x", "hydra/sweeper=optuna", "hydra.sweep.subdir=x"):
        single = train(*SAMPLE, override)
        assert single.error == f"error: {override} concerns only a sweep; add -m, or leave it out"
        assert not single.folder.exists()
    ended = sweep(*TINY, "hydra/sweeper=optuna", "+hydra.sweeper.params={seed: 1}")
    assert "hydra.sweeper.params is of the published Optuna plugin" in ended.error
    ended = sweep(*TINY, "hydra/sweeper=optuna", "seed=1,2", "hydra.sweep.subdir=x")
    assert "a search names its folders by the trials' numbers" in ended.error


def test_the_best_epoch_so_far_has_the_direction_of_its_metric(tmp_path: Path) -> None:
    job = tmp_path / "0"
    job.mkdir()
    status = {"state": "interrupted", "stage": "fit", "error": None}
    (job / "status.json").write_text(json.dumps(status))
    (job / "config.yaml").write_text("monitor: val/loss\nmode: max\n")
    (job / "history.csv").write_text("epoch,val/loss,seconds\n0,2.0,1\n1,1.0,1\n2,3.0,1\n")
    assert read_job(job, tmp_path).metrics["val/loss"] == 1


def test_a_large_record_of_hydra_is_not_read(tmp_path: Path) -> None:
    with (tmp_path / "multirun.yaml").open("wb") as file:
        file.truncate(2**30)
    with pytest.raises(DamagedFileError, match=r"multirun\.yaml is damaged: it has more than"):
        redact_sweep_record(tmp_path, {"secret"})
