"""The data of real runs in each dashboard, read back from its files."""

import contextlib
import importlib.util
import io
import json
import os
import sqlite3
import subprocess
import sys
import textwrap
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
import wandb
from PIL import Image

from engine.config.redaction import HIDDEN
from lightning_modules.segmenter import Segmenter
from lightning_modules.text_classifier import TextClassifier
from run_folders.run_folder import RunFolder
from tests.conftest import ROOT, SAMPLE, Train, identical
from tests.processes import run
from tests.wandb_files import StoredRun, stored_run, stored_runs

# The monitor is the loss, which is lower in the first of the two epochs.
TEXTS = (*SAMPLE, "trainer.log_every_n_steps=2", "monitor=val/loss", "mode=min")
IMAGES = (
    "experiment=sample_images", "data.rows={train: 64, val: 32, test: 40}", "trainer.max_epochs=1", "model.backbone.widths=[8,8]",
    "model.backbone.depth=1", "data.batch_size=16",
)  # fmt: skip
MASKS = (
    "experiment=sample_scenes", "data.rows={train: 16, val: 8, test: 10}", "trainer.max_epochs=1", "data.size=32", "data.batch_size=8",
)  # fmt: skip
# Without the extra, the run with all dashboards leaves MLflow out, and its tests are skipped.
MLFLOW = importlib.util.find_spec("mlflow") is not None
ALL = (
    ("logger=[wandb,tensorboard,mlflow]", "logger.mlflow.log_model=true")
    if MLFLOW
    else ("logger=[wandb,tensorboard]",)
)
KEY = "0123456789abcdef0123456789abcdef01234567"
PASSWORD, LOGIN = "correct-horse-battery", "staple-in-a-url"


def without_account(cwd: Path) -> dict[str, str]:
    """Return an environment without a W&B key, whoever runs the tests."""
    kept = {
        name: value
        for name, value in os.environ.items()
        if not name.startswith(("WANDB", "MLFLOW"))
    }
    netrc = {"NETRC": str(cwd / "netrc"), "WANDB_CONFIG_DIR": str(cwd / "config")}
    return {**kept, **netrc, "PYTHONPATH": str(ROOT), "HF_HUB_OFFLINE": "1"}


def run_in_new_process(
    cwd: Path, *command: str, **environment: str
) -> subprocess.CompletedProcess[str]:
    """Run in a new process: some dashboards live as long as their process."""
    script, *arguments = command
    program = Path(script)
    if script == "-c":
        program = cwd / "program.py"
        program.write_text(arguments.pop(0))
    ended = run(*arguments, program=program, cwd=cwd, env=without_account(cwd), **environment)
    return subprocess.CompletedProcess(command, *ended)


def run_in_this_process(cwd: Path, *overrides: str, code: int = 0) -> str:
    """Run the entry point in this process; return its stderr."""
    import train as entry

    errors = io.StringIO()
    with pytest.MonkeyPatch.context() as patch, contextlib.redirect_stderr(errors):
        for name in os.environ.keys() - without_account(cwd).keys():
            patch.delenv(name)
        for name, value in without_account(cwd).items():
            patch.setenv(name, value)
        patch.chdir(cwd)
        patch.setattr(
            sys,
            "argv",
            ["train.py", "trainer.accelerator=cpu", *overrides, f"hydra.run.dir={cwd / 'run'}"],
        )
        assert entry.main() == code, errors.getvalue()
    return errors.getvalue()


@dataclass(frozen=True)
class Logged:
    """A run and its working directory."""

    cwd: Path
    errors: str

    @property
    def folder(self) -> RunFolder:
        return RunFolder(self.cwd / "run")

    @property
    def stored(self) -> StoredRun:
        return stored_run(self.folder.path)


KEYED = """
import sys
import engine.config.validation.validate
import lightning

class Keyed(lightning.Callback):
    def __init__(self, api_key, address):
        assert "redacted" not in api_key + address

Keyed.__module__, Keyed.__qualname__ = "lightning.pytorch.callbacks", "Keyed"
import lightning.pytorch.callbacks
lightning.pytorch.callbacks.Keyed = Keyed
import train
sys.exit(train.main())
"""


@pytest.fixture(scope="module")
def texts(tmp_path_factory: pytest.TempPathFactory) -> Logged:
    """A run with every dashboard; its environment, config and command line contain secrets."""
    cwd = tmp_path_factory.mktemp("texts")
    keyed = f"+callbacks.keyed={{_target_: lightning.pytorch.callbacks.Keyed, api_key: {PASSWORD}, address: 'https://me:{LOGIN}@host/x'}}"
    secrets = {"WANDB_API_KEY": KEY, "WANDB_MODE": "offline", "HF_TOKEN": f"hf_{LOGIN}"}
    done = run_in_new_process(
        cwd,
        "-c",
        KEYED,
        "trainer.accelerator=cpu",
        *TEXTS,
        *ALL,
        keyed,
        f"hydra.run.dir={cwd / 'run'}",
        **secrets,
    )
    assert done.returncode == 0, done.stderr
    return Logged(cwd, done.stderr)


@pytest.fixture(scope="module")
def images(tmp_path_factory: pytest.TempPathFactory) -> Logged:
    cwd = tmp_path_factory.mktemp("images")
    return Logged(cwd, run_in_this_process(cwd, *IMAGES, "logger=[wandb,tensorboard]"))


@pytest.fixture(scope="module")
def masks(tmp_path_factory: pytest.TempPathFactory) -> Logged:
    cwd = tmp_path_factory.mktemp("masks")
    return Logged(cwd, run_in_this_process(cwd, *MASKS, "logger=wandb"))


@pytest.fixture(params=["texts", "images", "masks"])
def each(request: pytest.FixtureRequest) -> Logged:
    logged: Logged = request.getfixturevalue(request.param)
    return logged


def test_wandb_has_config_commit_and_environment(each: Logged) -> None:
    config = each.stored.config
    provenance = each.folder.read_json("provenance.json")
    assert config["provenance"] == provenance
    assert config["provenance"]["git"]["commit"] == provenance["git"]["commit"]
    assert config["seed"] == 1
    assert config["model"]["_target_"].startswith("lightning_modules.")
    assert "backbone" not in config  # the task's own arguments are not redacted
    assert each.stored.run.host


def test_wandb_has_every_row_of_the_history(each: Logged) -> None:
    stored, history = each.stored, each.folder.read_history()
    for column in [key for key in history[0] if key not in ("epoch", "step")]:
        expected = [(float(row["epoch"]), float(row[column])) for row in history if row[column]]
        assert stored.curve(column) == expected, column
    assert {"lr/head", "train/samples_per_second", "seconds", "val/loss"} <= set(history[0])
    assert stored.metrics["lr/*"] == stored.metrics["val/*"] == "epoch"
    assert stored.metrics["step/*"] == "trainer/global_step"


def test_wandb_has_steps_with_gradient_norm_and_throughput(each: Logged) -> None:
    stored = each.stored
    for key in ("step/loss", "step/grad_norm", "step/lr/head", "step/samples_per_second"):
        assert stored.curve(key)[0][0] == 1
        assert all(value > 0 for _, value in stored.curve(key))


def test_steps_are_logged_every_n_steps(texts: Logged) -> None:
    assert [step for step, _ in texts.stored.curve("step/loss")] == [
        1,
        3,
        5,
    ]  # every second one of six


def test_wandb_has_the_best_epoch_and_the_test_in_its_summary(each: Logged) -> None:
    summary, metrics = each.stored.summary, each.folder.read_json("metrics.json")
    for key, value in metrics["test"].items():
        if isinstance(value, float):
            assert summary[f"test/{key}"] == value
    monitor = metrics["best"]["monitor"]
    assert summary["best/epoch"] == metrics["best"]["epoch"]
    assert metrics["best"]["epoch"] == 0
    assert (
        summary[monitor] == summary[f"best/{monitor}"] == metrics["best"]["score"]
    )  # not the last epoch's


def test_wandb_has_classes_confusion_and_plan(each: Logged) -> None:
    stored, test = each.stored, each.folder.read_json("metrics.json")["test"]
    columns, rows = stored.table("test/classes")
    assert columns[0] == "class"
    assert {row[0]: dict(zip(columns[1:], row[1:], strict=True)) for row in rows} == test[
        "per_class"
    ]
    columns, rows = stored.table("test/confusion_table")
    assert columns == ["Actual", "Predicted", "nPredictions"]
    names, counts = test["classes"], np.asarray(test["confusion_matrix"])
    assert all(
        counts[names.index(label), names.index(prediction)] == count
        for label, prediction, count in rows
    )
    assert sum(row[2] for row in rows) == counts.sum()
    chart = stored.config["_wandb"]["visualize"]["test/confusion"]
    assert chart["panel_config"]["panelDefId"] == "wandb/confusion_matrix/v1"
    columns, rows = stored.table("plan")
    assert [dict(zip(columns, row, strict=True)) for row in rows] == each.folder.read_json(
        "plan.json"
    )["rows"]


def test_wandb_has_artifacts_and_was_closed(each: Logged) -> None:
    stored = each.stored
    found = {artifact.type: artifact for artifact in stored.artifacts}
    assert [entry.path for entry in found["model"].manifest.contents] == ["best.ckpt"]
    assert found["model"].manifest.contents[0].size == each.folder.best_checkpoint.stat().st_size
    assert "best" in found["model"].aliases
    assert [entry.path for entry in found["report"].manifest.contents] == ["report.html"]
    assert [entry.path for entry in found["record"].manifest.contents] == ["plan.json"]
    page = stored.folder / "files" / stored.media("report")["path"]
    assert page.read_text() == each.folder.report.read_text()
    assert stored.exit_code == 0
    assert {
        str(path.relative_to(stored.folder / "files"))
        for path in stored.folder.glob("files/media/**/*.*")
    } == set(stored.files)


def test_wandb_has_misclassified_texts(texts: Logged) -> None:
    table = pd.read_parquet(texts.folder.predictions)
    wrong = table[table["label"] != table["prediction"]]
    columns, rows = texts.stored.table("test/mistakes")
    assert columns == ["index", "label", "prediction", "confidence", "text"]
    assert {row[0]: row[4] for row in rows} == dict(zip(wrong["index"], wrong["text"], strict=True))
    assert [row[3] for row in rows] == sorted((row[3] for row in rows), reverse=True)


def test_wandb_has_misclassified_images(images: Logged) -> None:
    stored = images.stored
    _, rows = stored.table("test/mistakes")
    shown = stored.media("test/pictures")
    assert shown["count"] == len(rows) > 0
    for row, caption, name in zip(rows, shown["captions"], shown["filenames"], strict=True):
        assert caption == f"{row[1]} taken for {row[2]} ({row[3]:.2f}), index {row[0]}"
        assert Image.open(stored.folder / "files" / name).size == (32, 32)


def test_wandb_has_overlays_with_class_names(masks: Logged) -> None:
    stored, names = masks.stored, masks.folder.read_json("metrics.json")["test"]["classes"]
    shown = stored.media("test/pictures")
    assert shown["count"] == 9
    assert shown["captions"][0].startswith("worst: index ")
    labels = {
        key.rpartition("_")[2]: value["value"]
        for key, value in stored.config["_wandb"]["mask/class_labels"].items()
    }
    expected = {**{str(k): name for k, name in enumerate(names)}, "255": "not labelled"}
    assert labels == {"prediction": expected, "annotation": expected}
    table = pd.read_parquet(masks.folder.test_images)
    for files, (_, row) in zip(shown["all_masks"], table.iterrows(), strict=True):
        for kind in ("prediction", "annotation"):
            ours, theirs = (
                np.asarray(Image.open(f))
                for f in (io.BytesIO(row[kind]), stored.folder / "files" / files[kind]["path"])
            )
            assert (ours == theirs).all()
            assert set(np.unique(theirs)) <= {*range(len(names)), 255}


@pytest.mark.parametrize(
    "suffix", [".wandb", pytest.param("mlflow.db", marks=pytest.mark.extra("mlflow"))]
)
def test_secrets_are_in_no_file(suffix: str, texts: Logged) -> None:
    """Secrets of the environment, of config keys and of URLs are in no file of the run."""
    files = [path for path in texts.cwd.rglob("*") if path.is_file()]
    assert any(path.name.endswith(suffix) for path in files)
    for path in files:
        content = path.read_bytes()
        for secret in (KEY, PASSWORD, LOGIN):
            assert secret.encode() not in content, path
    assert texts.stored.config["callbacks"]["keyed"]["api_key"] == HIDDEN
    assert not any(secret in texts.errors for secret in (KEY, PASSWORD, LOGIN))


def test_tensorboard_has_config_and_curves(texts: Logged, images: Logged) -> None:
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    for logged in (texts, images):
        assert len(list((logged.folder.path / "tensorboard").glob("events.*"))) == 1
        events = EventAccumulator(str(logged.folder.path / "tensorboard")).Reload()
        history, tags = logged.folder.read_history(), events.Tags()
        for key in ("val/acc", "train/loss", "lr/head", "train/samples_per_second"):
            assert [s.value for s in events.Scalars(key)] == pytest.approx(
                [float(row[key]) for row in history]
            )
            assert [s.step for s in events.Scalars(key)] == [int(row["step"]) for row in history]
        assert {
            "step/loss",
            "step/grad_norm",
            "step/lr/head",
            "step/samples_per_second",
            "test/acc",
        } <= set(tags["scalars"])
        (text,) = events.Tensors("config/text_summary")
        shown = textwrap.dedent(text.tensor_proto.string_val[0].decode())
        assert shown == logged.folder.config.read_text()
    (score,) = events.Scalars("best/val/acc")
    assert score.value == pytest.approx(images.folder.read_json("metrics.json")["best"]["score"])


def rows_of(database: Path, query: str) -> list[tuple[Any, ...]]:
    with contextlib.closing(sqlite3.connect(database)) as connection:
        return connection.execute(query).fetchall()


@pytest.mark.extra("mlflow")
def test_mlflow_has_config_curves_and_artifacts(texts: Logged) -> None:
    database = texts.cwd / "runs" / "mlflow.db"
    ((run_id, name, state, experiment),) = rows_of(
        database,
        "SELECT run_uuid, r.name, status, e.name FROM runs r JOIN experiments e USING (experiment_id)",
    )
    assert (name, state, experiment) == ("sample_text run", "FINISHED", "thaw")
    parameters = dict(rows_of(database, "SELECT key, value FROM params"))
    assert (parameters["seed"], parameters["callbacks/keyed/api_key"]) == ("1", HIDDEN)
    assert "lr" not in parameters  # the task's own arguments are not redacted
    metrics, history = texts.folder.read_json("metrics.json"), texts.folder.read_history()
    latest = dict(rows_of(database, "SELECT key, value FROM latest_metrics"))
    assert latest["test/acc"] == metrics["test"]["acc"]
    assert latest["best/val/loss"] == metrics["best"]["score"]
    losses = rows_of(
        database, "SELECT step, value FROM metrics WHERE key = 'val/loss' ORDER BY step"
    )
    assert losses == [(int(row["step"]), float(row["val/loss"])) for row in history]
    assert rows_of(
        database, "SELECT step FROM metrics WHERE key = 'step/grad_norm' ORDER BY step"
    ) == [(1,), (3,), (5,)]
    artifacts = texts.cwd / "runs" / "mlflow_artifacts" / run_id / "artifacts"
    copies = {
        path.relative_to(artifacts).as_posix(): path
        for path in artifacts.rglob("*")
        if path.is_file()
    }
    for key, path in {
        "best/best.ckpt": texts.folder.best_checkpoint,
        "report.html": texts.folder.report,
    }.items():
        assert copies.pop(key).read_bytes() == path.read_bytes()
    assert set(copies) == {
        "config.yaml",
        "provenance.json",
        "plan.json",
        "best/metadata.yaml",
        "best/aliases.txt",
    }


def test_dashboards_do_not_change_the_results(texts: Logged, train: Train) -> None:
    """Weights, predictions, and the history without times are the same without dashboards."""
    plain = RunFolder(train(*TEXTS).folder)
    ours, theirs = (torch.load(f.last_checkpoint, weights_only=True) for f in (texts.folder, plain))
    assert identical(dict(ours["state_dict"]), dict(theirs["state_dict"]))
    assert identical(ours["optimizer_states"], theirs["optimizer_states"])
    rows = [
        [{k: v for k, v in row.items() if "second" not in k} for row in f.read_history()]
        for f in (texts.folder, plain)
    ]
    assert rows[0] == rows[1]
    pd.testing.assert_frame_equal(
        *(pd.read_parquet(f.predictions) for f in (texts.folder, plain)), check_exact=True
    )


def test_the_gradient_norm_is_taken_before_clipping(
    texts: Logged, train: Train, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Compared with a plain formula over the gradients before clipping."""
    norms: list[float] = []

    def note(
        self: TextClassifier, optimizer: torch.optim.Optimizer, *_: object, **__: object
    ) -> None:
        grads = [p.grad.double().flatten() for p in self.parameters() if p.grad is not None]
        norms.append(float(torch.cat(grads).square().sum().sqrt()))
        torch.nn.utils.clip_grad_norm_(self.parameters(), 1.0)

    monkeypatch.setattr(TextClassifier, "configure_gradient_clipping", note)
    train(*TEXTS)
    assert [value for _, value in texts.stored.curve("step/grad_norm")] == pytest.approx(
        norms[::2], rel=1e-5
    )
    assert max(norms) > 1.0  # so that the clipped norm would differ


def test_a_failed_run_is_marked_and_closed(tmp_path: Path) -> None:
    overrides = (
        "model.lr=1e30",
        "model.backbone_lr=1e30",
        "trainer.gradient_clip_val=null",
        "model.schedule.warmup=0",
    )
    errors = run_in_this_process(tmp_path, *TEXTS, *overrides, "logger=[wandb,tensorboard]", code=1)
    assert "the training loss is" in errors
    assert "no key was found, so the run is logged offline" in errors
    assert stored_run(tmp_path / "run").exit_code == 1
    assert wandb.run is None


def test_a_resumed_run_continues_its_wandb_run(tmp_path: Path) -> None:
    """Offline, W&B writes a second file of the same run; `wandb sync` merges them."""
    overrides = (*TEXTS, "logger=wandb")
    run_in_this_process(tmp_path, *overrides, "trainer.max_epochs=1")
    run_in_this_process(tmp_path, *overrides, "trainer.max_epochs=2", "ckpt_path=last")
    first, second = stored_runs(tmp_path / "run")
    run_ids = json.loads((tmp_path / "run" / "loggers.json").read_text())
    assert first.run.run_id == second.run.run_id == run_ids["wandb"]
    assert [epoch for epoch, _ in (*first.curve("val/acc"), *second.curve("val/acc"))] == [0, 1]


@pytest.mark.extra("mlflow")
def test_a_resumed_run_continues_its_mlflow_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (
        tmp_path / "train.py"
    ).touch()  # the script of the run, in a repository with a login in its remote
    for command in (
        ["init", "--quiet"],
        ["remote", "add", "origin", f"https://me:{LOGIN}@host/x.git"],
    ):
        subprocess.run(["git", *command], cwd=tmp_path, check=True)
    commit = [
        "-c",
        "user.name=me",
        "-c",
        "user.email=me@host",
        "commit",
        "--quiet",
        "--allow-empty",
        "--message=x",
    ]
    subprocess.run(["git", *commit], cwd=tmp_path, check=True)
    overrides = (*TEXTS, "logger=mlflow", f"paths.runs_dir={tmp_path}")
    run_in_this_process(tmp_path, *overrides, "trainer.max_epochs=1")
    database, states = tmp_path / "mlflow.db", []
    record = lambda _: states.extend(rows_of(database, "SELECT status FROM runs"))  # noqa: E731
    monkeypatch.setattr(TextClassifier, "on_test_start", record)
    run_in_this_process(tmp_path, *overrides, "trainer.max_epochs=2", "ckpt_path=last")
    run_ids = json.loads((tmp_path / "run" / "loggers.json").read_text())
    assert states == [("RUNNING",)]
    assert rows_of(database, "SELECT run_uuid, status FROM runs") == [
        (run_ids["mlflow"], "FINISHED")
    ]
    assert rows_of(database, "SELECT step FROM metrics WHERE key = 'val/acc' ORDER BY step") == [
        (3,),
        (6,),
    ]
    tags = dict(rows_of(database, "SELECT key, value FROM tags"))
    assert tags["mlflow.source.git.commit"]
    assert LOGIN.encode() not in database.read_bytes()


@pytest.mark.extra("mlflow")
def test_mlflow_gets_no_checkpoint_of_a_failed_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(_: TextClassifier) -> None:
        raise RuntimeError("disk on fire")

    monkeypatch.setattr(TextClassifier, "on_test_start", fail)
    run_in_this_process(tmp_path, *TEXTS, "trainer.max_epochs=1", "logger=mlflow", code=1)
    assert RunFolder(tmp_path / "run").best_checkpoint.is_file()
    assert list((tmp_path / "runs" / "mlflow_artifacts").rglob("config.yaml"))
    assert not list((tmp_path / "runs" / "mlflow_artifacts").rglob("*.ckpt"))


@pytest.mark.extra("mlflow")
def test_mlflow_gets_the_checkpoint_of_an_untrained_run_and_accepts_a_run_id(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Segmenter, "uninitialized", lambda _: "")  # as if no weight were random
    overrides = (*MASKS, "train=false", "logger=mlflow", f"paths.runs_dir={tmp_path}")
    for name in ("first", "second"):
        (tmp_path / name).mkdir()
    run_in_this_process(tmp_path / "first", *overrides)
    ((run_id,),) = rows_of(tmp_path / "mlflow.db", "SELECT run_uuid FROM runs")
    copy = tmp_path / "mlflow_artifacts" / run_id / "artifacts" / "best" / "best.ckpt"
    assert copy.read_bytes() == RunFolder(tmp_path / "first" / "run").best_checkpoint.read_bytes()
    run_in_this_process(tmp_path / "second", *overrides, "seed=2", f"logger.mlflow.run_id={run_id}")
    assert rows_of(tmp_path / "mlflow.db", "SELECT run_uuid, status FROM runs") == [
        (run_id, "FINISHED")
    ]


def sweep_of_two(cwd: Path, logger: str) -> Path:
    """Run two jobs in one process, the second with a NaN loss; return the sweep's folder."""
    overrides = (
        *TEXTS,
        "trainer.max_epochs=1",
        "model.lr=1e-3,1e30",
        "model.schedule.warmup=0",
        logger,
    )
    done = run_in_new_process(
        cwd, str(ROOT / "train.py"), "-m", "trainer.accelerator=cpu", *overrides
    )
    assert done.returncode == 1
    (sweep,) = (cwd / "runs" / "sweeps" / "sample_text").iterdir()
    return sweep


def test_jobs_of_a_sweep_are_wandb_runs_of_one_group_and_one_may_fail(
    tmp_path: Path,
) -> None:
    sweep = sweep_of_two(tmp_path, "logger=wandb")
    first, second = (stored_run(sweep / job) for job in ("0", "1"))
    assert first.run.run_id != second.run.run_id
    assert first.run.run_group == second.run.run_group == f"sample_text/{sweep.name}"
    assert [first.run.display_name, second.run.display_name] == [
        f"sample_text {sweep.name} {job}" for job in "01"
    ]
    assert [one.config["model"]["lr"] for one in (first, second)] == [1e-3, 1e30]
    assert [one.exit_code for one in (first, second)] == [0, 1]


@pytest.mark.extra("mlflow")
def test_jobs_of_a_sweep_are_mlflow_runs_and_one_may_fail(tmp_path: Path) -> None:
    sweep = sweep_of_two(tmp_path, "logger=mlflow")
    states = rows_of(
        tmp_path / "runs" / "mlflow.db", "SELECT name, status FROM runs ORDER BY start_time"
    )
    assert states == [
        (f"sample_text {sweep.name} {job}", state)
        for job, state in (("0", "FINISHED"), ("1", "FAILED"))
    ]
