"""Studies of depth: what they compute, write and print, and when they are refused."""

import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from sklearn.linear_model import LogisticRegression
from sklearn.preprocessing import StandardScaler

from engine.depth.advice import INPUT_LAYERS, Probed, advise, compare_with_best
from reports.statistics import mcnemar_exact
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
    assert "the first one that the paired test does not tell from the best, after b" in advice.why
    strict = advise(compared, 0.6)
    assert strict.start_layer is None
    assert "every earlier state is worse; no layer comes after it" in strict.why
