"""The cost of a run is measured on a part of its data; nothing is left; the report compares it."""

import json
import os
import re
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import engine.run
from engine.cost import estimate as estimating
from engine.cost.cost import Cost, costs_of_jobs
from engine.cost.estimate import _of_study, _scaled
from engine.feature_cache.cache_plan import CachePlan
from run_folders.run_folder import RunFolder
from tests.conftest import SAMPLE, Train
from tests.engine.conftest import RunSweep

COST = Cost(2.0, 60.0, 900_000_000, None, 5_000_000, 40_000_000)


def listed(*folders: str | Path) -> set[str]:
    return {str(path) for folder in folders for path in Path(folder).rglob("*")}


def test_plan_cost_measures_and_leaves_nothing(
    train: Train, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    found: list[Cost] = []

    def measured(*given: Any) -> Cost:
        found.append(estimating.estimate(*given))
        return found[-1]

    monkeypatch.setattr(engine.run, "estimate", measured)
    places = (os.environ["THAW_CACHE"], tmp_path)
    temporary = tmp_path / "temporary"
    temporary.mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(temporary))
    before = listed(*places)
    ended = train("plan=cost", "trainer.max_epochs=4", "data.rows={train: 400, val: 80, test: 80}")
    assert ended.code == 0, ended.err
    for line in ("seconds an epoch", "seconds in all", "peak memory", "disk for checkpoints"):
        assert line in ended.out
    (cost,) = found
    assert cost.total > 4 * cost.epoch > 0
    assert cost.host > 100_000_000
    assert cost.checkpoints > 400_000  # the weights of 0.12 million parameters
    assert listed(*places) == before


def test_the_cost_of_a_ladder_has_all_rungs_and_their_features(
    train: Train, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    found: list[Cost] = []

    def measured(*given: Any) -> Cost:
        found.append(estimating.estimate(*given))
        return found[-1]

    monkeypatch.setattr(engine.run, "estimate", measured)
    ended = train(
        "depth=ladder",
        "plan=cost",
        "data.rows={train: 80, val: 60, test: 60}",
        "trainer.max_epochs=2",
    )
    assert ended.code == 0, ended.err
    # Features of 140 texts, of at least two channels and four bytes.
    assert found[0].cache > 140 * 8
    # Three rungs (head, 1, all), each with the weights of 0.12 million parameters.
    assert found[0].checkpoints > 3 * 400_000
    assert found[0].total > 2 * found[0].epoch > 0
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (("debug=fast",), "set samples={train: 1000} in place of trainer.limit_train_batches"),
        (
            ("trainer.limit_val_batches=5",),
            "set samples={val: 1000} in place of trainer.limit_val_batches\n",
        ),
        (("+trainer.val_check_interval=2",), "trainer.val_check_interval=2 counts batches"),
    ],
)
def test_what_cannot_be_measured_is_refused(
    overrides: tuple[str, ...], message: str, train: Train
) -> None:
    ended = train("plan=cost", *SAMPLE, *overrides)
    assert ended.code == 1
    assert f"the cost cannot be measured: {message}" in ended.err


def test_a_failure_of_the_measured_run_is_one_line(
    train: Train, monkeypatch: pytest.MonkeyPatch
) -> None:
    program = "import sys; print('error: no space left', file=sys.stderr); sys.exit(1)"
    monkeypatch.setattr(estimating, "process_command", lambda *_: ["python", "-c", program])
    ended = train("plan=cost", *SAMPLE)
    assert ended.code == 1
    assert ended.err.endswith("plan=cost: the measured run failed: no space left\n")


def estimated(monkeypatch: pytest.MonkeyPatch) -> None:
    def known(*_: Any) -> Cost:
        costs_of_jobs.append(COST)
        return COST

    monkeypatch.setattr(engine.run, "estimate", known)


def test_the_report_compares_the_estimate_with_the_facts(
    train: Train, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    estimated(monkeypatch)
    ended = train(*SAMPLE, "estimate=true")
    assert ended.code == 0, ended.err
    plan = json.loads((tmp_path / "run" / "plan.json").read_text())
    assert plan["estimate"]["total"] == 60.0
    metrics = json.loads((tmp_path / "run" / "metrics.json").read_text())
    total, host = metrics["seconds"]["total"], metrics["bytes"]["host"]
    page = (tmp_path / "run" / "report.html").read_text()
    assert "<h2>Cost</h2>" in page
    assert f'<td class="n">60.0</td><td class="n">{total:.1f}</td>' in page
    assert f"{60 / total - 1:+.0%}" in page
    assert f"{900_000_000 / host - 1:+.0%}" in page
    assert (
        "<h2>Cost</h2>"
        not in Path(train(*SAMPLE, folder=tmp_path / "b").folder, "report.html").read_text()
    )


def test_a_sweep_prints_the_sum(sweep: RunSweep, monkeypatch: pytest.MonkeyPatch) -> None:
    estimated(monkeypatch)
    ended = sweep(*SAMPLE, "plan=cost", "seed=1,2,3")
    assert ended.code == 0, ended.err
    assert "cost of all 3 jobs, one after the other" in ended.out
    rows = [line for line in ended.out.splitlines() if "seconds in all" in line]
    assert [re.findall(r"\d+", row) for row in rows] == [["60"]] * 3 + [["180"]]
    assert not ended.folder.exists()


def test_costs_add_up() -> None:
    other = Cost(1.0, 10.0, 500, 700, 3, 4)
    assert Cost(2.0, 60.0, 900, None, 5, 6) + other == Cost(3.0, 70.0, 900, 700, 8, 10)


def measured_run(folder: Path, history: list[dict[str, str]], seconds: dict[str, Any], data: dict[str, Any], plan: dict[str, Any]) -> RunFolder:  # fmt: skip
    run = RunFolder(folder)
    run.path.mkdir(parents=True)
    if history:
        run.write_history(history)
    metrics = {
        "val": {"n": 10},
        "best": {},
        "parameters": {"total": 1, "trainable": 1},
        "seconds": seconds,
    }
    run.write_json("metrics.json", {**metrics, "bytes": {"host": 7, "device": 8, "checkpoints": 9}})
    hardware = {"cpu": "", "threads": 1, "memory_gib": 1.0, "gpus": []}
    run.write_json("provenance.json", {"git": {"commit": None, "dirty": None}, "versions": {}, "hardware": hardware, "seed": 1, "data": data})  # fmt: skip
    parts = {
        "rows": [],
        "parameters": {"total": 1, "trainable": 1},
        "stages": [],
        "precision": "32",
        "device": "cpu",
    }
    run.write_json("plan.json", {**parts, **plan})
    return run


def durations(fit: float, total: float, steps: list[float], **more: float) -> dict[str, Any]:
    parts = {"test": None, "epoch_mean": 1.0, "features": None, **more}
    return {"fit": fit, "total": total, "steps": steps, **parts}


def split(rows: int, **more: int) -> dict[str, Any]:
    return {"rows": rows, "sha256": "", **more}


def test_steps_validation_and_features_are_scaled_and_the_rest_is_not(tmp_path: Path) -> None:
    # An epoch: 0.5 s of overhead, 8 steps of 0.25 s, and 0.3 s of validation.
    row = {"epoch": "0", "seconds": "2.8", "train/seconds": "2.5"}
    seconds = durations(8.4, 20.0, [0.25] * 3, test=0.6, features=4.0)
    run = measured_run(
        tmp_path / "run", [row] * 3, seconds,
        {"train": split(80), "val": split(20), "test": split(20)}, {"batches_per_epoch": 8, "padding_share": None},
    )  # fmt: skip
    plan = {
        "samples": {"train": 800, "val": 100, "test": 200},
        "batches_per_epoch": 80,
        "padding_share": None,
        "max_epochs": 10,
        "max_steps": -1,
    }
    data = {"train": split(800), "val": split(100), "test": split(200)}
    cost = _scaled(run, plan, data, CachePlan())
    epoch = 0.5 + 80 * 0.25 + 0.3 * 5
    assert cost.epoch == pytest.approx(epoch)
    rest = 20.0 - 8.4 - 0.6 - 4.0 - 0.3
    predicted = 0.3 * 5
    assert cost.total == pytest.approx(10 * epoch + rest + predicted + 0.6 * 10 + 4.0 * 1100 / 120)
    assert (cost.host, cost.device, cost.checkpoints, cost.cache) == (7, 8, 9, 0)


def test_a_part_of_an_epoch_and_epochs_without_validation(tmp_path: Path) -> None:
    row = {"epoch": "0", "seconds": "2.3", "train/seconds": "2.0"}
    seconds = durations(6.9, 10.0, [0.25] * 3)
    run = measured_run(
        tmp_path / "run", [row] * 3, seconds,
        {"train": split(80), "val": split(20)}, {"batches_per_epoch": 8, "padding_share": None},
    )  # fmt: skip
    plan = {
        "samples": {"train": 800, "val": 20},
        "batches_per_epoch": 80,
        "padding_share": None,
        "max_epochs": -1,
        "max_steps": 100,
    }
    data = {"train": split(800), "val": split(20)}
    cost = _scaled(run, plan, data, CachePlan(), interval=3)
    epoch = 80 * 0.25 + 0.3 / 3
    assert cost.epoch == pytest.approx(epoch)
    # 100 steps are 1.25 epochs; the rest is 10 s less fit and the last pass over val.
    assert cost.total == pytest.approx(1.25 * epoch + (10 - 6.9 - 0.3) + 0.3)


def test_texts_are_scaled_by_their_padded_tokens(tmp_path: Path) -> None:
    row = {"epoch": "0", "seconds": "2.5", "train/seconds": "2.0"}
    seconds = durations(5.0, 9.0, [0.25] * 2, features=3.0)
    run = measured_run(
        tmp_path / "run", [row] * 2, seconds,
        {"train": split(64, tokens=1000, padded_tokens=2000), "val": split(20, padded_tokens=600)}, {"batches_per_epoch": 8, "padding_share": 0.2},
    )  # fmt: skip
    plan = {
        "samples": {"train": 640, "val": 20},
        "batches_per_epoch": 80,
        "padding_share": 0.0,
        "max_epochs": 2,
        "max_steps": -1,
    }
    data = {
        "train": split(640, tokens=12_000, padded_tokens=15_000),
        "val": split(20, padded_tokens=900),
    }
    cost = _scaled(run, plan, data, CachePlan())
    # 1,000 tokens with 20 % padding are 1,250; 12,000 without are 9.6 times as many.
    epoch = 8 * 0.25 * 9.6 + 0.5 * 1.5
    assert cost.epoch == pytest.approx(epoch)
    # The pass of features reads 15,900 padded tokens in place of 2,600, and the rest is 0.5 s.
    assert cost.total == pytest.approx(2 * epoch + 3.0 * 15_900 / 2600 + 0.5 + 0.5 * 1.5)


def test_a_study_without_training_is_scaled_by_its_samples(tmp_path: Path) -> None:
    own = {"train": split(80, padded_tokens=2000), "val": split(20, padded_tokens=500)}
    seconds = durations(4.0, 9.0, [], features=3.0)
    run = measured_run(tmp_path / "run", [], seconds, own, {"batches_per_epoch": 3, "padding_share": 0.2})  # fmt: skip
    plan = {"samples": {"train": 800, "val": 200}, "batches_per_epoch": 30, "padding_share": 0.0}
    data = {"train": split(800, padded_tokens=15_000), "val": split(200, padded_tokens=4000)}
    cost = _scaled(run, plan, data, CachePlan())
    # The probes read one vector of each sample; the pass, all tokens.
    assert cost.total == pytest.approx(4.0 * 10 + 3.0 * 19_000 / 2500 + 2.0)
    assert cost.epoch == 0


def test_a_test_without_training(tmp_path: Path) -> None:
    own = {"test": split(20, padded_tokens=500)}
    known = {"batches_per_epoch": 0, "padding_share": None}
    run = measured_run(tmp_path / "run", [], durations(0.0, 3.0, [], test=2.0), own, known)
    data = {"test": split(200, padded_tokens=4000)}
    cost = _scaled(run, {"samples": {"test": 200}, **known}, data, CachePlan())
    assert cost.total == pytest.approx(2.0 * 8 + 1.0)


def test_the_test_of_a_rung_grows_as_validation_does(tmp_path: Path) -> None:
    """The measured rung reads the test split, which the study has not read."""
    own = {"train": split(80), "val": split(20), "test": split(20)}
    known = {"batches_per_epoch": 8, "padding_share": None}
    run = measured_run(tmp_path / "run", [], durations(0.0, 3.0, [], test=2.0), own, known)
    data = {"train": split(800), "val": split(100)}
    cost = _scaled(run, {"samples": {"train": 800, "val": 100}, **known}, data, CachePlan())
    assert cost.total == pytest.approx(2.0 * 5 + 1.0)


def test_features_of_a_study_are_stored_without_padding(tmp_path: Path) -> None:
    own = {"train": split(80, tokens=1000, padded_tokens=2000), "val": split(20)}
    known = {"batches_per_epoch": 3, "padding_share": 0.5}
    study = measured_run(tmp_path / "run", [], durations(0.0, 30.0, [], features=4.0), own, known)
    rung = measured_run(study.rungs / "head", [], durations(0.0, 20.0, []), own, known)
    (tmp_path / "cache").mkdir()
    (tmp_path / "cache" / "values.bin").write_bytes(bytes(1000))
    data = {"train": split(800, tokens=10_180, padded_tokens=10_080), "val": split(20)}
    cost = _of_study(study, [rung], tmp_path / "cache", data)
    assert cost.cache == 10_000
    # The pass, scaled by padded tokens, and what is neither pass nor rung.
    assert cost.total == pytest.approx(4.0 * 5 + 6.0)


def test_each_stage_of_unfreezing_has_its_own_time(tmp_path: Path) -> None:
    rows = [
        {"epoch": str(i), "seconds": str(s), "train/seconds": str(s)}
        for i, s in enumerate((9, 1, 4, 4))
    ]
    seconds = durations(18.0, 18.0, [9, 1, 4, 4])
    run = measured_run(
        tmp_path / "run", rows, seconds, {"train": split(8), "val": split(4)}, {"batches_per_epoch": 1, "padding_share": None},
    )  # fmt: skip
    plan = {
        "samples": {"train": 16, "val": 4},
        "batches_per_epoch": 2,
        "padding_share": None,
        "max_epochs": 5,
        "max_steps": -1,
    }
    cost = _scaled(run, plan, {"train": split(16), "val": split(4)}, CachePlan())
    assert cost.total == pytest.approx(2 * (1 + 1 + 4 + 4 + 4))  # the first epoch warms up


def test_a_part_of_the_samples(train: Train, tmp_path: Path) -> None:
    import thaw

    part = (
        "data=sample_text",
        "samples={train: 40, test: 30}",
        "data.rows={train: 100, val: 40, test: 60}",
    )
    ended = train(*part, "trainer.max_epochs=1")
    assert ended.code == 0, ended.err
    plan = json.loads((tmp_path / "run" / "plan.json").read_text())
    assert plan["samples"] == {"train": 40, "val": 40, "test": 30}
    run = thaw.Run(tmp_path / "run")
    assert run.predictions()["index"].tolist() == sorted(
        np.random.default_rng(0).permutation(60)[:30]
    )
    from engine.evaluation import evaluate

    assert evaluate(tmp_path / "run", None) == 0


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("samples={tra: 5}", "samples.tra"),
        ("samples={train: 0}", "samples.train"),
        ("samples=5", "a mapping such as {train: 1000} is needed"),
        ("plan=costs", "plan (the command line): received 'costs'; choose true, false or cost"),
        ("estimate=cost", "choose true or false"),
    ],
)
def test_wrong_values_are_named(override: str, message: str, train: Train) -> None:
    ended = train(*SAMPLE, override)
    assert ended.code == 1
    assert message in ended.err
