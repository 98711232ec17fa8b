"""The entry point: help, mistyped overrides, sweeps, and the files of a default run."""

import gc
import json
import subprocess
import sys
from pathlib import Path

import pandas as pd
import pytest

from engine import launch
from run_folders.run_folder import RunFolder
from tests.conftest import ROOT, SAMPLE, Train

LIGHT = """
import sys, runpy
sys.argv = ["train.py", *sys.argv[1:]]
try:
    runpy.run_path("train.py", run_name="__main__")
finally:
    assert not {"torch", "lightning"} & set(sys.modules), "imported what is heavy"
"""


def light(*arguments: str) -> subprocess.CompletedProcess[str]:
    """Run the entry point in a process that fails if torch or lightning is imported."""
    return subprocess.run(
        [sys.executable, "-c", LIGHT, *arguments],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )


def test_help_names_every_experiment_without_heavy_imports() -> None:
    done = light("--help")
    assert done.returncode == 0, done.stderr
    assert "ctbert_bigru_finetune" in done.stdout
    assert "plan=true" in done.stdout


def test_cfg_job_without_heavy_imports() -> None:
    done = light("--cfg", "job", "experiment=minilm_feature", "trainer.max_epochs=3")
    assert done.returncode == 0, done.stderr
    assert "backbone: sentence-transformers/all-MiniLM-L6-v2" in done.stdout
    assert "max_epochs: 3" in done.stdout


@pytest.mark.parametrize(
    ("override", "named"),
    [
        ("trainer.max_epoch=3", ["trainer.max_epoch", "trainer.max_epochs"]),
        ("max_epochs=3", ["max_epochs", "trainer.max_epochs"]),
        ("experiment=bert_finetun", ["bert_finetun", "bert_finetune"]),
        ("modle.lr=1", ["modle.lr", "model.lr"]),
        ("hydrate=3", ["hydrate"]),
        ("model.lr.x=3", ["model.lr.x"]),
        ("foo", ["'foo' is neither KEY=VALUE nor GROUP=OPTION", "--help"]),
        ("=3", ["'=3' is neither"]),
        ("data=3", ["configs/data/ has no '3'", "covid_fake_news"]),
        ("+data=covid", ["configs/data/ has no 'covid'", "covid_fake_news"]),
        ("hydra/launcher=basik", ["hydra/launcher has no 'basik'", "basic"]),
        ("hydra.run.dri=x", ["hydra.run.dri"]),
        ("experiment=", ["configs/experiment/ has no ''", "bert_feature"]),
        ("data.cleaning.htlm=true", ["data.cleaning.htlm", "data.cleaning.html"]),
    ],
)
def test_mistyped_override_is_one_line_without_heavy_imports(
    override: str, named: list[str]
) -> None:
    done = light(override)
    assert done.returncode == 1
    assert len(done.stderr.strip().splitlines()) == 1, done.stderr
    for part in named:
        assert part in done.stderr


@pytest.mark.parametrize(
    ("override", "named"),
    [
        ("experiment=bert_finetune,bert_featur", ["has no 'bert_featur'", "bert_feature"]),
        ("trainer.max_epoch=1,2", ["'trainer.max_epoch'", "trainer.max_epochs"]),
    ],
)
def test_mistyped_override_in_a_sweep_is_one_line(
    override: str, named: list[str], tmp_path: Path
) -> None:
    done = light("-m", override, "seed=1,2", f"hydra.sweep.dir={tmp_path / 'sweep'}")
    assert done.returncode == 1
    assert len(done.stderr.strip().splitlines()) == 1, done.stderr
    for part in named:
        assert part in done.stderr
    assert not (tmp_path / "sweep").exists()


def test_default_run_writes_every_file(train: Train) -> None:
    ended = train(*SAMPLE)
    assert ended.code == 0, ended.err
    names = {
        path.relative_to(ended.folder).as_posix()
        for path in ended.folder.rglob("*")
        if path.is_file()
    }
    assert names == {
        "config.yaml", "status.json", "provenance.json", "metrics.json", "history.csv", "plan.json", "report.html", "train.log",
        "predictions/test.parquet", "predictions/val.parquet", "checkpoints/best.ckpt", "checkpoints/last.ckpt",
    }  # fmt: skip
    folder = RunFolder(ended.folder)
    status = folder.read_json("status.json")
    assert (status["state"], status["error"]) == ("finished", None)
    assert status["started"] <= status["ended"]
    history = folder.read_history()
    assert [row["epoch"] for row in history] == ["0", "1"]
    assert {
        "train/loss",
        "val/acc",
        "lr/features",
        "lr/head",
        "train/seconds",
        "train/samples_per_second",
    } <= set(history[0])
    metrics = folder.read_json("metrics.json")
    assert set(metrics) == {"kind", "val", "test", "best", "loss", "parameters", "seconds", "bytes"}
    assert metrics["kind"] == "classification"
    assert metrics["loss"] == "lightning_modules.losses.classification.CrossEntropy"
    best = max(history, key=lambda row: float(row["val/acc"]))
    assert metrics["best"]["score"] == float(best["val/acc"]) == metrics["val"]["acc"]
    validated = pd.read_parquet(folder.predictions_of("val"))
    assert len(validated) == metrics["val"]["n"]
    assert (validated["label"] == validated["prediction"]).mean() == metrics["val"]["acc"]
    predictions = pd.read_parquet(folder.predictions)
    assert list(predictions) == [
        "index",
        "label",
        "prediction",
        "probability_fake",
        "probability_real",
        "text",
    ]
    assert len(predictions) == metrics["test"]["n"] == 40
    provenance = folder.read_json("provenance.json")
    assert provenance["data"]["train"]["rows"] == 96
    assert len(provenance["data"]["test"]["sha256"]) == 64
    assert provenance["versions"]["lightning"]


def test_metrics_state_their_number_of_samples(train: Train) -> None:
    ended = train(
        *SAMPLE,
        "data.eval_batch_size=8",
        "trainer.limit_val_batches=2",
        "trainer.limit_test_batches=3",
    )
    metrics = RunFolder(ended.folder).read_json("metrics.json")
    assert (metrics["val"]["n"], metrics["test"]["n"]) == (16, 24)
    assert sum(map(sum, metrics["test"]["confusion_matrix"])) == 24
    assert RunFolder(ended.folder).read_history()[0]["train/n"] == "96"


def test_a_run_returns_its_best_score(
    train: Train, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    import engine.run

    scores, real = [], engine.run.run
    monkeypatch.setattr(
        engine.run,
        "run",
        lambda cfg, folder, ckpt_path: scores.append(real(cfg, folder, ckpt_path)),
    )
    for name, pick, overrides in (("a", max, ()), ("b", min, ("monitor=val/loss", "mode=min"))):
        folder = RunFolder(train(*SAMPLE, *overrides, folder=tmp_path / name).folder)
        column = overrides[0].removeprefix("monitor=") if overrides else "val/acc"
        assert scores[-1] == pick(float(row[column]) for row in folder.read_history())


def test_mixed_precision_accumulation_and_clipping_go_through_the_trainer(train: Train) -> None:
    ended = train(
        *SAMPLE,
        "trainer.precision=bf16-mixed",
        "trainer.accumulate_grad_batches=2",
        "trainer.gradient_clip_val=0.1",
    )
    assert ended.code == 0, ended.err
    folder = RunFolder(ended.folder)
    assert folder.read_json("plan.json")["precision"] == "bf16-mixed"
    assert [row["step"] for row in folder.read_history()] == [
        "2",
        "4",
    ]  # three batches per epoch, two per step


def test_runs_with_the_same_seed_have_identical_metrics(train: Train, tmp_path: Path) -> None:
    folders = [train(*SAMPLE, folder=tmp_path / name).folder for name in ("a", "b")]
    other = train(*SAMPLE, "seed=2", folder=tmp_path / "c").folder
    metrics = [json.loads((folder / "metrics.json").read_text()) for folder in (*folders, other)]
    for one in metrics:
        del one["seconds"], one["bytes"]
    assert metrics[0] == metrics[1]
    assert metrics[0]["test"]["loss"] != metrics[2]["test"]["loss"]
    tables = [pd.read_parquet(folder / "predictions" / "test.parquet") for folder in folders]
    pd.testing.assert_frame_equal(*tables, check_exact=True)


def test_sweep_runs_each_job_in_its_own_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, tiny_backbone: Path, covid_dir: Path
) -> None:
    """Two experiments and their seeds, in the folder that Thaw itself chooses."""
    import train as entry

    monkeypatch.chdir(tmp_path)
    overrides = [
        "experiment=bert_feature,bert_finetune", "seed=1,2", f"model.backbone={tiny_backbone}", f"paths.data_dir={covid_dir}",
        "trainer.max_epochs=1", "trainer.accelerator=cpu",
    ]  # fmt: skip
    monkeypatch.setattr(sys, "argv", ["train.py", "-m", *overrides])
    assert entry.main() == 0
    (sweep,) = (tmp_path / "runs" / "sweeps" / "bert_feature+bert_finetune").iterdir()
    records = [RunFolder(sweep / str(job)).read_json("provenance.json")["seed"] for job in range(4)]
    assert records == [1, 2, 1, 2]
    assert all(
        RunFolder(sweep / str(job)).read_json("status.json")["state"] == "finished"
        for job in range(4)
    )


def test_sweep_into_a_given_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import train as entry

    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(
        sys,
        "argv",
        [
            "train.py",
            "-m",
            *SAMPLE,
            "trainer.max_epochs=1",
            "seed=1,2",
            f"hydra.sweep.dir={tmp_path / 'sweep'}",
        ],
    )
    assert entry.main() == 0
    for job, seed in (("0", 1), ("1", 2)):
        folder = RunFolder(tmp_path / "sweep" / job)
        assert folder.read_json("status.json")["state"] == "finished"
        assert folder.read_json("provenance.json")["seed"] == seed


def test_a_run_does_not_overwrite_another(train: Train) -> None:
    first = train(*SAMPLE, "trainer.max_epochs=1")
    before = (first.folder / "metrics.json").read_bytes()
    second = train(*SAMPLE, "trainer.max_epochs=1")
    assert second.code == 1
    assert "holds a run already" in second.error
    assert "ckpt_path=last" in second.error
    assert (first.folder / "metrics.json").read_bytes() == before
    assert RunFolder(first.folder).read_json("status.json")["state"] == "finished"


def test_garbage_collection_resumes_after_the_imports() -> None:
    with launch.garbage_collection_disabled():
        assert not gc.isenabled()
    assert gc.isenabled()
    with pytest.raises(ImportError), launch.garbage_collection_disabled():
        raise ImportError
    assert gc.isenabled()


@pytest.mark.parametrize("epochs", ["-1", "null"])
def test_steps_may_limit_a_training_without_a_number_of_epochs(epochs: str, train: Train) -> None:
    ended = train(*SAMPLE, f"trainer.max_epochs={epochs}", "trainer.max_steps=12")
    assert ended.code == 0, ended.err
    history = RunFolder(ended.folder).read_history()
    assert int(history[-1]["step"]) == 12
    assert float(history[-1]["lr/head"]) < float(history[0]["lr/head"])


def test_a_file_in_place_of_the_run_folder_is_named(train: Train, tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    for folder in (tmp_path / "file", tmp_path / "file" / "inside"):
        ended = train(*SAMPLE, folder=folder)
        assert f"the folder {folder} cannot be created" in ended.error
        assert "Traceback" not in ended.err


def test_a_refusal_of_lightning_is_one_line(train: Train) -> None:
    ended = train(*SAMPLE, "+callbacks.lr._target_=lightning.pytorch.callbacks.LearningRateMonitor")
    assert ended.error.startswith("error: trainer: Cannot use `LearningRateMonitor`")
    assert "Traceback" not in ended.err
