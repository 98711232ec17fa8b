"""Studies of depth: what they compute, write and print, and when they are refused."""

import json
import shlex
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from sklearn.linear_model import LogisticRegression
from sklearn.preprocessing import StandardScaler

from engine.depth.advice import INPUT_LAYERS, Probed, advise, compare_with_best
from engine.depth.ladder import why_stopped
from engine.depth.power_law import PowerLaw, extrapolate, fit_power_law
from reports.depth.parts import overrides_of
from reports.depth.rungs import TrainedRung
from reports.statistics import mcnemar_exact, smallest_difference
from tests.conftest import Train
from tests.engine.conftest import RunSweep

SMALL = (
    "data.rows={train: 80, val: 40, test: 40}",
    "data.batch_size=20",
    "data.eval_batch_size=20",
)
IMAGES = (
    "data=sample_images",
    "model=sample_image_classifier",
    "data.rows={train: 60, val: 30, test: 30}",
)


def depth_of(folder: Path) -> dict:  # type: ignore[type-arg]
    record: dict = json.loads((folder / "depth.json").read_text())  # type: ignore[type-arg]
    return record


@pytest.mark.drawn
def test_a_probe_reports_each_block(train: Train, tmp_path: Path) -> None:
    ended = train("depth=probe", *SMALL, "model.backbone.num_hidden_layers=3")
    assert ended.code == 0, ended.err
    record = depth_of(tmp_path / "run")
    assert record["samples"] == {"train": 80, "val": 40}
    layers = [INPUT_LAYERS, *(f"encoder.layer.{i}" for i in range(3))]
    assert [state["after"] for state in record["states"]] == [n for n in layers for _ in "12"]
    assert [state["pooling"] for state in record["states"]] == ["mean", "cls"] * 4
    assert sum(state["best"] for state in record["states"]) == 1
    best = max(record["states"], key=lambda state: state["acc"])
    metrics = json.loads((tmp_path / "run" / "metrics.json").read_text())
    assert metrics["val"]["acc"] == best["acc"]
    assert metrics["val"]["n"] == 40
    predictions = pd.read_parquet(tmp_path / "run" / "predictions" / "val.parquet")
    assert (predictions["label"] == predictions["prediction"]).mean() == best["acc"]
    assert predictions["index"].is_monotonic_increasing
    page = (tmp_path / "run" / "report.html").read_text()
    for text in (record["advice"]["why"][1:], "state after encoder.layer.*", "95 % Wilson"):
        assert text in page, text
    assert f"advised start_layer: {record['advice']['start_layer'] or 'none'}" in ended.out
    # The test split was neither read nor predicted.
    provenance = json.loads((tmp_path / "run" / "provenance.json").read_text())
    assert "test" not in provenance["data"]
    assert not (tmp_path / "run" / "predictions" / "test.parquet").exists()
    assert not (tmp_path / "run" / "checkpoints").exists()


def test_states_are_stored_and_shared(train: Train, tmp_path: Path) -> None:
    for name in ("first", "second"):
        ended = train(
            "depth=probe", *SMALL, "model.backbone.num_hidden_layers=1", folder=tmp_path / name
        )
        assert ended.code == 0, ended.err
    first, second = depth_of(tmp_path / "first"), depth_of(tmp_path / "second")
    assert first["seconds"]["states"] > 0
    assert second["seconds"]["states"] == 0
    assert first["states"] == second["states"]


def test_images_are_probed_without_augmentation(train: Train, tmp_path: Path) -> None:
    ended = train("depth=probe", *IMAGES, "data.augmentation.rotation=15", "depth.samples=40")
    assert ended.code == 0, ended.err
    record = depth_of(tmp_path / "run")
    assert record["samples"] == {"train": 40, "val": 30}
    assert record["states"][-1]["pooling"] == "features"


def test_probes_equal_those_of_scikit_learn(train: Train, tmp_path: Path) -> None:
    ended = train("depth=probe", *SMALL, "model.backbone.num_hidden_layers=1")
    assert ended.code == 0, ended.err
    import lightning
    import torch
    from omegaconf import OmegaConf

    from engine.config.instantiating import build_object

    cfg = OmegaConf.load(tmp_path / "run" / "config.yaml")
    lightning.seed_everything(cfg.seed, verbose=False)
    data, task = build_object(cfg, "data"), build_object(cfg, "model")
    data.splits_to_read = ("train", "val")
    data.setup()
    values, labels = {}, {}
    for split in ("train", "val"):
        source = data.feature_input(split)
        vectors = torch.empty(source.samples, task.features.width)
        with torch.no_grad():
            for positions, batch in zip(source.positions, source.loader(), strict=True):
                hidden = (
                    task.eval()
                    .features.model(
                        input_ids=batch["input_ids"], attention_mask=batch["attention_mask"]
                    )
                    .last_hidden_state
                )
                vectors[torch.as_tensor(positions)] = hidden[:, 0]
        values[split], labels[split] = vectors.numpy(), np.asarray(data.labels_of(split))
    state = depth_of(tmp_path / "run")["states"][-1]
    assert (state["pooling"], state["start_layer"]) == ("cls", None)
    scaler = StandardScaler().fit(values["train"])
    model = LogisticRegression(C=1 / (80 * state["penalty"]), tol=1e-8, max_iter=5000)
    model.fit(scaler.transform(values["train"]), labels["train"])
    assert model.score(scaler.transform(values["val"]), labels["val"]) == state["acc"]


@pytest.mark.drawn
def test_a_sweep_ranks_backbones(sweep: RunSweep, tmp_path: Path) -> None:
    ended = sweep("depth=probe", *SMALL, "model.backbone.num_hidden_layers=1,2")
    assert ended.code == 0, ended.err
    page = (tmp_path / "sweep" / "sweep.html").read_text()
    assert "ranked by their best probe" in page
    accuracies = [depth_of(tmp_path / "sweep" / str(i))["states"] for i in range(2)]
    best = [max(state["acc"] for state in states) for states in accuracies]
    named = [
        page.index(f'model.backbone.num_hidden_layers={i + 1}</td>\n<td class="n">{acc:.4f}')
        for i, acc in enumerate(best)
    ]
    assert (named[0] < named[1]) == (best[0] >= best[1])


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (("data=sample_scenes", "model=sample_segmenter"), "Segmenter does not predict one class"),
        (("train=false",), "a study of depth replaces training"),
        (("ckpt_path=x.ckpt",), "a study of depth starts from model.backbone"),
        (("depth.samples=1",), "depth.samples"),
        (("depth.significance=2",), "depth.significance"),
        (("depth.layers=1",), "depth.layers"),
    ],
)
def test_what_a_study_cannot_do_is_refused(
    overrides: tuple[str, ...], message: str, train: Train
) -> None:
    ended = train("depth=probe", *overrides)
    assert ended.code != 0
    assert message in ended.err


def state(after: str, start: str | None, hits: int) -> Probed:
    return Probed(after, start, "mean", 8, hits, hits / 100, (0.0, 1.0), 0.5, 0.1)


def correct(*wrong: range) -> np.ndarray:  # type: ignore[type-arg]
    found = np.ones(100, dtype=bool)
    for samples in wrong:
        found[samples] = False
    return found


def test_the_first_state_that_is_not_worse_is_advised() -> None:
    rows = [state(INPUT_LAYERS, "a", 60), state("a", "b", 88), state("b", None, 90)]
    flags = [correct(range(40)), correct(range(12)), correct(range(2, 12))]
    compared = compare_with_best(rows, flags)
    assert [row.best for row in compared] == [False, False, True]
    assert [row.p for row in compared] == [mcnemar_exact(0, 30), mcnemar_exact(0, 2), 1.0]
    advice = advise(compared, 0.05)
    assert (advice.start_layer, advice.after) == ("b", "a")
    assert "is the first one without a significant difference from the best state" in advice.why
    strict = advise(compared, 0.6)
    assert strict.start_layer is None
    assert "every earlier state is worse; no layer comes after it" in strict.why


LADDER = ("depth=ladder", *SMALL, "trainer.max_epochs=1", "model.backbone.num_hidden_layers=3")


@pytest.mark.drawn
def test_a_ladder_trains_rungs_and_tests_the_chosen_one_once(train: Train, tmp_path: Path) -> None:
    ended = train(*LADDER, "depth.every_rung=true")
    assert ended.code == 0, ended.err
    folder = tmp_path / "run"
    record = depth_of(folder)
    assert [rung["name"] for rung in record["rungs"]] == ["head", "1", "2", "all"]
    starts = [None, "encoder.layer.2", "encoder.layer.1", "all"]
    assert [rung["start_layer"] for rung in record["rungs"]] == starts
    assert record["stopped"] == "every rung was trained"
    correct = []
    for rung in record["rungs"]:
        run = folder / rung["folder"]
        metrics = json.loads((run / "metrics.json").read_text())
        assert rung["acc"] == metrics["val"]["acc"]
        assert rung["trainable"] == metrics["parameters"]["trainable"]
        # Only the chosen rung was tested.
        assert ("test" in metrics) == (rung["name"] == record["chosen"])
        table = pd.read_parquet(run / "predictions" / "val.parquet")
        correct.append(table["label"] == table["prediction"])
    best = 0
    for at in range(1, 4):
        gained = int((correct[at] & ~correct[best]).sum())
        lost = int((~correct[at] & correct[best]).sum())
        assert record["rungs"][at]["p"] == mcnemar_exact(gained, lost)
        best = at if gained > lost and mcnemar_exact(gained, lost) < 0.05 else best
    assert record["chosen"] == record["rungs"][best]["name"]
    tested = json.loads((folder / record["rungs"][best]["folder"] / "metrics.json").read_text())
    assert record["test"]["acc"] == tested["test"]["acc"]
    page = (folder / "report.html").read_text()
    copied = "freeze_backbone=true" if record["chosen"] == "head" else "callbacks=unfreezing"
    for text in ("looked at once", "Accuracy by trainable parameters", copied):
        assert text in page, text


def test_a_ladder_stops_where_a_rung_is_not_better_and_goes_on(
    train: Train, tmp_path: Path
) -> None:
    frozen = "model.backbone_lr=0"  # so that no rung can be better
    ended = train(*LADDER, frozen, "depth.significance=0.001")
    assert ended.code == 0, ended.err
    record = depth_of(tmp_path / "run")
    assert [rung["name"] for rung in record["rungs"]] == ["head", "1"]
    assert record["chosen"] == "head"
    assert record["stopped"].startswith("rung 1 is not better than rung head")
    # Interrupted while the second rung was trained: the first one is not trained again.
    before = (tmp_path / "run" / "rungs" / "0_head" / "history.csv").stat().st_mtime_ns
    status = tmp_path / "run" / "rungs" / "1_1" / "status.json"
    status.write_text(json.dumps({**json.loads(status.read_text()), "state": "interrupted"}))
    ended = train(*LADDER, frozen, "depth.significance=0.001", "ckpt_path=last")
    assert ended.code == 0, ended.err
    after = (tmp_path / "run" / "rungs" / "0_head" / "history.csv").stat().st_mtime_ns
    assert after == before
    again = depth_of(tmp_path / "run")
    assert [rung["acc"] for rung in again["rungs"]] == [rung["acc"] for rung in record["rungs"]]


def test_a_ladder_says_if_its_test_was_too_weak() -> None:
    below = TrainedRung("2", "b", "2_2", 10, 1.0, 900, 1000, 0.90, (0.88, 0.92))
    above = replace(below, name="4", acc=0.91, compared_with="2", p=0.09, detectable=0.012)
    why = "rung 4 is not better than rung 2"
    found = (
        "it gains 0.0100, and the test finds 0.0120 or more; depth.every_rung=true trains all rungs"
    )
    assert why_stopped(above, below) == f"{why}: {found}"
    assert "the test finds no difference;" in why_stopped(replace(above, detectable=None), below)
    assert why_stopped(replace(above, acc=0.90), below) == why


def test_budgets_and_warm_starts_of_a_ladder(train: Train, tmp_path: Path) -> None:
    ended = train(
        *LADDER, "depth.every_rung=true", "depth.warm_start=true", "depth.parameters=60000"
    )
    assert ended.code == 0, ended.err
    record = depth_of(tmp_path / "run")
    trained = [rung["name"] for rung in record["rungs"]]
    assert trained == ["head", "1"]
    assert record["stopped"].startswith("rung 2 trains 85,")
    provenance = json.loads((tmp_path / "run" / "rungs" / "1_1" / "provenance.json").read_text())
    assert provenance["backbone"]["run"] == str(tmp_path / "run" / "rungs" / "0_head")
    ended = train(*LADDER, "depth.seconds=0.001", folder=tmp_path / "short")
    assert ended.code == 0, ended.err
    record = depth_of(tmp_path / "short")
    assert [rung["name"] for rung in record["rungs"]] == ["head"]
    assert record["stopped"] == "the budget of depth.seconds=0.001 is spent"


@pytest.mark.drawn
def test_a_sweep_over_rungs_shows_its_ladder(sweep: RunSweep, tmp_path: Path) -> None:
    ended = sweep(*LADDER, "depth.rung=head,all", "seed=1,2")
    assert ended.code == 0, ended.err
    page = (tmp_path / "sweep" / "sweep.html").read_text()
    for seed in (1, 2):
        assert page.count(f"<h2>Ladder seed={seed}</h2>") == 1
    assert page.count("is chosen: no later rung is better than it on validation") == 2
    config = (tmp_path / "sweep" / "2" / "config.yaml").read_text()
    assert "start_layer: all" in config
    assert "DepthLadder" not in config  # an ordinary run
    assert "test: false" in config


def test_an_unknown_rung_is_refused(train: Train) -> None:
    ended = train(*LADDER, "depth.rung=7")
    assert ended.code == 1
    assert "unfreezing.last_blocks: received 7; BertModel has 3 blocks" in ended.err
    ended = train(*LADDER, "depth.rung=deep")
    assert ended.code == 1
    assert "depth.rung: received 'deep'; head, all, or a number of blocks is needed" in ended.err


def test_the_smallest_difference_that_the_test_finds() -> None:
    for differing in (3, 6, 10, 31):
        found = smallest_difference(differing, 200, 0.05)
        splits = [(k, differing - k) for k in range(differing + 1)]
        differences = [(a - b) / 200 for a, b in splits if a > b and mcnemar_exact(a, b) < 0.05]
        assert found == (min(differences) if differences else None)
    assert smallest_difference(3, 200, 0.05) is None


@pytest.mark.drawn
def test_heads_on_parts_of_the_labels(train: Train, tmp_path: Path) -> None:
    ended = train("depth=labels", "data.rows={train: 200, val: 60, test: 20}", "depth.draws=3")
    assert ended.code == 0, ended.err
    record = depth_of(tmp_path / "run")
    assert [part["n"] for part in record["parts"]] == list(range(20, 201, 20))
    assert all(len(part["acc"]) == 3 for part in record["parts"])
    assert len(set(record["parts"][-1]["acc"])) == 1  # all labels: the draws are the same
    law = PowerLaw(*(record["law"][name] for name in ("limit", "scale", "exponent")))
    assert record["twice"]["acc"] == pytest.approx(float(law(400)))
    means = [np.mean(part["acc"]) for part in record["parts"]]
    small = fit_power_law(np.arange(20.0, 121, 20), np.asarray(means[:6]))
    off = np.abs(small(np.arange(140, 201, 20)) - means[6:]).max()
    assert record["law"]["largest_error"] == pytest.approx(off)
    assert "twice the labels, predicted" in (tmp_path / "run" / "report.html").read_text()


def test_too_few_labels_are_refused(train: Train) -> None:
    ended = train("depth=labels", *SMALL, "data.rows={train: 44, val: 40, test: 40}")
    assert ended.code == 1
    assert "depth=labels: train has 44 samples; at least 50 are needed" in ended.err


@pytest.mark.parametrize("law", [PowerLaw(0.95, 0.9, 0.5), PowerLaw(0.8, 2.0, 0.9)])
def test_a_power_law_is_found_again(law: PowerLaw) -> None:
    sizes = np.arange(100.0, 1001, 100)
    found = fit_power_law(sizes, law(sizes))
    assert found(2000) == pytest.approx(law(2000), abs=1e-4)
    exact = np.repeat(law(sizes)[:, None], 5, axis=1)
    acc, low, high = extrapolate(sizes, exact, 1_000_000, 2000, seed=0)
    assert acc == pytest.approx(law(2000), abs=1e-4)
    assert low < acc < high
    assert high - low < 0.01  # validation is the only source of error
    _, wide_low, wide_high = extrapolate(sizes, exact, 400, 2000, seed=0)
    assert wide_high - wide_low > 3 * (high - low)


def test_one_pass_computes_the_features_of_all_rungs(train: Train, tmp_path: Path) -> None:
    longer = (*LADDER, "trainer.max_epochs=2", "depth.every_rung=true")
    together, alone = tmp_path / "together", tmp_path / "alone"
    ended = train(*longer, f"cache.dir={together}")
    assert ended.code == 0, ended.err
    folder = tmp_path / "run"
    assert depth_of(folder)["seconds"]["features"] > 0
    for rung in ("0_head", "1_1", "2_2"):
        features = json.loads((folder / "rungs" / rung / "plan.json").read_text())["features"]
        assert all(entry["found"] for name, entry in features["splits"].items() if name != "test")
    # A rung that computes its own features stores the same bytes under the same keys.
    ended = train(
        *longer[1:-1],
        "callbacks=unfreezing", "callbacks.unfreezing.start_layer=encoder.layer.2", f"cache.dir={alone}", "test=false",
        folder=tmp_path / "one",
    )  # fmt: skip
    assert ended.code == 0, ended.err
    keys = [path.parent.name for path in alone.glob("*/values.bin")]
    assert len(keys) == 2
    for key in keys:
        own = (alone / key / "values.bin").read_bytes()
        assert own == (together / key / "values.bin").read_bytes()


def test_testing_the_chosen_rung_trains_nothing(train: Train, tmp_path: Path) -> None:
    ended = train(*LADDER, "model.backbone_lr=0", "trainer.max_epochs=4", "callbacks=early_stopping",
                  "callbacks.early_stopping.patience=1", "callbacks.early_stopping.min_delta=1")  # fmt: skip
    assert ended.code == 0, ended.err
    record = depth_of(tmp_path / "run")
    rung = tmp_path / "run" / record["rungs"][0]["folder"]
    assert record["chosen"] == "head"
    history = (rung / "history.csv").read_text().splitlines()
    assert len(history) == 3  # two of four epochs, and the header
    status = json.loads((rung / "status.json").read_text())
    assert (rung / "history.csv").stat().st_mtime < (
        rung / "predictions" / "test.parquet"
    ).stat().st_mtime
    assert status["state"] == "finished"
    assert json.loads((rung / "provenance.json").read_text())["data"]["test"]["rows"] == 40
    from engine.evaluation import evaluate

    assert evaluate(rung, None) == 0


def test_a_new_ladder_does_not_take_over_the_rungs_of_another(train: Train) -> None:
    assert train(*LADDER, "depth.seconds=0.001").code == 0
    ended = train(*LADDER, "model.lr=0.1")
    assert ended.code == 1
    assert "holds a run already" in ended.err
    ended = train(*LADDER, "model.lr=0.1", "ckpt_path=last")
    assert ended.code == 1
    assert "began with another config: model.lr" in ended.err


def test_rungs_and_ladders_of_a_sweep_resume(sweep: RunSweep, tmp_path: Path) -> None:
    ended = sweep(*LADDER, "depth.rung=head,1", "trainer.max_epochs=2")
    assert ended.code == 0, ended.err
    job = tmp_path / "sweep" / "1"
    status = json.loads((job / "status.json").read_text())
    (job / "status.json").write_text(json.dumps({**status, "state": "interrupted"}))
    ended = sweep("sweep.resume=sweep")
    assert ended.code == 0, ended.err
    assert not (tmp_path / "sweep" / "1_attempt_1").exists()
    assert json.loads((job / "status.json").read_text())["state"] == "finished"
    ended = sweep(*LADDER, "seed=3,4", "hydra.sweep.dir=ladders", "model.backbone_lr=0")
    assert ended.code == 0, ended.err
    job = tmp_path / "ladders" / "0"
    trained = (job / "rungs" / "0_head" / "history.csv").stat().st_mtime_ns
    (job / "status.json").write_text(json.dumps({**status, "state": "interrupted"}))
    ended = sweep("sweep.resume=ladders")
    assert ended.code == 0, ended.err
    assert (job / "rungs" / "0_head" / "history.csv").stat().st_mtime_ns == trained


UNFREEZING = {
    "_target_": "lightning_modules.callbacks.layer_unfreezing.LayerUnfreezing",
    "schedule": {0: "a"},
}
STOPPING = {"_target_": "lightning.pytorch.callbacks.EarlyStopping"}


@pytest.mark.parametrize(
    ("start", "config", "overrides"),
    [
        (None, {}, "model.freeze_backbone=true"),
        (None, {"callbacks": {"u": UNFREEZING, "e": STOPPING}}, "model.freeze_backbone=true '~callbacks.u'"),
        ("b", {"callbacks": {}}, "callbacks=unfreezing callbacks.unfreezing.start_layer=b"),
        (
            "b", {"callbacks": {"u": UNFREEZING, "e": STOPPING}, "model": {"freeze_backbone": True}},
            "callbacks.u.start_layer=b callbacks.u.schedule=null model.freeze_backbone=false",
        ),
        ("b", {"callbacks": {"e": STOPPING}}, "callbacks=unfreezing_early_stopping callbacks.unfreezing.start_layer=b"),
    ],
)  # fmt: skip
def test_overrides_to_copy(start: str | None, config: dict[str, Any], overrides: str) -> None:
    assert overrides_of(start, config) == overrides


def test_what_is_to_copy_can_be_trained(train: Train) -> None:
    copied = overrides_of("encoder.layer.1", {"model": {"freeze_backbone": True}})
    ended = train(*SMALL, *copied.split(), "plan=true")
    assert ended.code == 0, ended.err


@pytest.mark.parametrize("start", [None, "encoder.layer.1"])
def test_what_is_to_copy_follows_overrides_that_unfreeze(start: str | None, train: Train) -> None:
    typed = ("callbacks=unfreezing", "callbacks.unfreezing.schedule={0: encoder.layer.1}")
    copied = overrides_of(start, {"callbacks": {"unfreezing": UNFREEZING}})
    ended = train(*SMALL, *typed, *shlex.split(copied), "plan=true")
    assert ended.code == 0, ended.err
