"""Each precision trains, validates, tests, evaluates and predicts in that precision on the CPU."""

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from PIL import Image

from engine.config.precision import PRECISIONS, precision_plugin
from engine.evaluation import evaluate
from engine.predict import open_run, predict
from lightning_modules.head_task import HeadTask
from lightning_modules.multilabel import MultilabelTask
from run_folders.run_folder import RunFolder
from tests.conftest import LINEAR_SAMPLE, SAMPLE, Train, identical
from tests.engine.test_multilabel_runs import COLUMNS, NAMES, TEXTS, mood_rows, write_moods
from tests.images import COLOURS, image_folder
from tests.masks import class_list, segmentation_folder

WEIGHTS = {
    "32-true": torch.float32, "64-true": torch.float64, "bf16-mixed": torch.float32,
    "16-mixed": torch.float32, "bf16-true": torch.bfloat16, "16-true": torch.float16,
}  # fmt: skip
# A linear layer's outputs: autocast computes them in half precision.
OUTPUTS = {**WEIGHTS, "bf16-mixed": torch.bfloat16, "16-mixed": torch.float16}
TRUE = ["64-true", "bf16-true", "16-true"]
IMAGES = (
    "data=image", "data.folder=colours", f"data.classes=[{','.join(COLOURS)}]", "data.num_classes=5", "data.size=16",
    "model=sample_image_classifier", "model.backbone.widths=[8,8]", "model.image_size=24", "model.tta_flip=true",
    "data.batch_size=8", "trainer.max_epochs=2",
)  # fmt: skip
SCENES = (
    "data=segmentation", "data.folder=rooms", "data.num_classes=11", "data.size=32", "data.batch_size=4",
    "model=sample_segmenter", "trainer.max_epochs=1",
)  # fmt: skip


@pytest.fixture
def output_dtypes(monkeypatch: pytest.MonkeyPatch) -> set[torch.dtype]:
    """The dtypes of the logits that networks return."""
    found: set[torch.dtype] = set()
    logits = HeadTask.logits

    def recorded(self: HeadTask, batch: Any) -> torch.Tensor:
        values = logits(self, batch)
        found.add(values.dtype)
        return values

    monkeypatch.setattr(HeadTask, "logits", recorded)
    return found


def checked(ended: Any, precision: str) -> RunFolder:
    """Check a run's checkpoint and that its evaluation has the same metrics."""
    assert ended.code == 0, ended.err
    folder = RunFolder(ended.folder)
    assert folder.read_json("plan.json")["precision"] == precision
    state = torch.load(folder.best_checkpoint, weights_only=True)["state_dict"]
    weights = {
        v.dtype for k, v in state.items() if k.startswith("network.") and v.is_floating_point()
    }
    assert weights == {WEIGHTS[precision]}
    assert evaluate(folder.path, None) == 0
    return folder


def tolerance(precision: str) -> float:
    """Batches and padding of predictions differ from those of the test."""
    return 1e-5 if OUTPUTS[precision].itemsize > 2 else 64 * torch.finfo(OUTPUTS[precision]).eps


LINEAR = (*LINEAR_SAMPLE, "model.pooling=mean")


@pytest.mark.parametrize(
    ("head", "precision"),
    [*((SAMPLE, each) for each in PRECISIONS), (LINEAR, "16-mixed"), (LINEAR, "bf16-true")],
)
def test_texts(
    head: tuple[str, ...],
    precision: str,
    train: Train,
    tmp_path: Path,
    output_dtypes: set[torch.dtype],
) -> None:
    folder = checked(train(*head, f"trainer.precision={precision}"), precision)
    assert output_dtypes == {OUTPUTS[precision]}  # in training, validation and test
    tested = pd.read_parquet(folder.predictions)
    column = tested.columns[-1]
    tested[[column]].rename(columns={column: "text"}).to_csv(tmp_path / "new.csv", index=False)
    output_dtypes.clear()
    out = pd.read_parquet(
        predict(folder.path, [tmp_path / "new.csv"], tmp_path / "out.parquet", column="text")
    )
    assert output_dtypes == {OUTPUTS[precision]}
    for name in ("fake", "real"):
        assert out[f"probability_{name}"].to_numpy() == pytest.approx(
            tested[f"probability_{name}"].to_numpy(), abs=tolerance(precision)
        )


@pytest.mark.parametrize("precision", PRECISIONS)
def test_images(
    precision: str, train: Train, tmp_path: Path, output_dtypes: set[torch.dtype]
) -> None:
    image_folder(tmp_path / "data" / "colours", {"train": 6, "val": 3, "test": 3})
    data = f"paths.data_dir={tmp_path / 'data'}"
    folder = checked(train(*IMAGES, data, f"trainer.precision={precision}"), precision)
    assert OUTPUTS[precision] in output_dtypes
    output_dtypes.clear()
    out = pd.read_parquet(
        predict(folder.path, [tmp_path / "data" / "colours" / "test"], tmp_path / "out.parquet")
    )
    assert output_dtypes == {OUTPUTS[precision]}
    out["image"] = [f"test/{Path(name).parent.name}/{Path(name).name}" for name in out["image"]]
    both = pd.read_parquet(folder.predictions).merge(out, on="image", suffixes=("", "_now"))
    assert len(both) == 15
    for name in COLOURS:
        assert both[f"probability_{name}"].to_numpy() == pytest.approx(
            both[f"probability_{name}_now"].to_numpy(), abs=tolerance(precision)
        )
        assert both[f"probability_{name}"].dtype == max(
            WEIGHTS[precision], torch.float32, key=lambda d: d.itemsize
        ).__str__().removeprefix("torch.")


@pytest.mark.parametrize("precision", TRUE)
def test_several_labels_keep_their_thresholds_in_float32(
    precision: str, train: Train, tmp_path: Path
) -> None:
    data = f"paths.data_dir={write_moods(tmp_path / 'data' / 'moods')}"
    folder = checked(train(*TEXTS, COLUMNS, data, f"trainer.precision={precision}"), precision)
    task = open_run(folder.path, "cpu").task
    assert isinstance(task, MultilabelTask)
    assert task.thresholds.dtype == torch.float32
    recorded = folder.read_json("metrics.json")["test"]["per_class"]
    assert task.thresholds.tolist() == [row["threshold"] for row in recorded.values()]
    pd.DataFrame(mood_rows(24, 2))[["text"]].to_csv(tmp_path / "new.csv", index=False)
    out = pd.read_parquet(predict(folder.path, [tmp_path / "new.csv"], tmp_path / "out.parquet"))
    tested = pd.read_parquet(folder.predictions)
    for name in NAMES:
        assert out[f"probability_{name}"].to_numpy() == pytest.approx(
            tested[f"probability_{name}"].to_numpy(), abs=tolerance(precision)
        )


@pytest.mark.parametrize("precision", ["16-mixed", *TRUE])
def test_masks(precision: str, train: Train, tmp_path: Path) -> None:
    root = segmentation_folder(tmp_path / "data" / "rooms", {"train": 8, "val": 3, "test": 5})
    class_list(tmp_path / "rooms.yaml")
    overrides = (
        *SCENES,
        f"data.class_list={tmp_path / 'rooms.yaml'}",
        f"paths.data_dir={tmp_path / 'data'}",
    )
    folder = checked(train(*overrides, f"trainer.precision={precision}"), precision)
    tested = pd.read_parquet(folder.predictions)
    assert tested["pixel_acc"].dtype != np.float16
    predict(folder.path, [root / "images" / "test"], tmp_path / "out")
    for i, accuracy in enumerate(tested["pixel_acc"]):
        predicted, labels = (
            np.asarray(Image.open(path))
            for path in (
                tmp_path / "out" / f"{i:03}.labels.png",
                root / "annotations" / "test" / f"{i:03}.png",
            )
        )
        assert (predicted == labels).mean() == pytest.approx(accuracy, abs=0.01)


@pytest.mark.parametrize("precision", ["16-mixed", "bf16-true"])
def test_a_resumed_run_equals_an_uninterrupted_one(
    precision: str, train: Train, tmp_path: Path
) -> None:
    overrides = (
        *SAMPLE,
        f"trainer.precision={precision}",
        "schedule=constant",
        "model.schedule.warmup=0",
    )
    whole = train(*overrides, "trainer.max_epochs=3", folder=tmp_path / "whole")
    assert whole.code == 0, whole.err
    train(*overrides, "trainer.max_epochs=1", folder=tmp_path / "parts")
    parts = train(*overrides, "trainer.max_epochs=3", "ckpt_path=last", folder=tmp_path / "parts")
    assert parts.code == 0, parts.err
    one, other = (
        torch.load(RunFolder(ended.folder).last_checkpoint, weights_only=True)
        for ended in (whole, parts)
    )
    for key in ("state_dict", "optimizer_states"):
        assert identical(one[key], other[key])


AVERAGE = "{_target_: lightning.pytorch.callbacks.EMAWeightAveraging, decay: 0.8}"
STOCHASTIC = "{_target_: lightning.pytorch.callbacks.StochasticWeightAveraging, swa_lrs: 0.01, swa_epoch_start: 1}"
EXTRAS = {
    "average": (f"+callbacks.average={AVERAGE}",),
    "stochastic": (f"+callbacks.average={STOCHASTIC}",),
    "clipped": ("trainer.gradient_clip_val=0.01",),
    "clipped by value": (
        "trainer.gradient_clip_val=0.01",
        "+trainer.gradient_clip_algorithm=value",
    ),
    "sgd": ("optimizer=sgd", "schedule=plateau"),
    "accumulated": ("trainer.accumulate_grad_batches=2", "schedule=exponential"),
    "cached": ("model.freeze_backbone=true", "cache.features=true"),
}


# Each with the precision that treats it most differently from 32-true: a gradient scaler clips and
# skips steps, and averages and caches hold weights or features in the run's type.
@pytest.mark.parametrize(
    ("extra", "precision"),
    [
        ("average", "bf16-true"),
        ("stochastic", "64-true"),
        ("clipped", "16-mixed"),
        ("clipped by value", "16-mixed"),
        ("sgd", "16-mixed"),
        ("accumulated", "16-mixed"),
        ("cached", "bf16-true"),
    ],
)
def test_callbacks_clipping_and_optimizers(extra: str, precision: str, train: Train) -> None:
    overrides = (*LINEAR, f"trainer.precision={precision}")
    checked(train(*overrides, *EXTRAS[extra]), precision)


@pytest.mark.parametrize("precision", ["64-true", "16-mixed", "bf16-true"])
def test_a_loss_that_is_nan_ends_the_run(precision: str, train: Train) -> None:
    ended = train(
        *LINEAR_SAMPLE,
        "model.lr=1e30",
        "model.backbone_lr=1e30",
        "trainer.gradient_clip_val=null",
        f"trainer.precision={precision}",
        "trainer.max_epochs=9",
    )
    assert ended.code == 1
    assert "the training loss is " in ended.error or "the val loss" in ended.error, ended.error


@pytest.mark.parametrize(
    "precision", ["transformer-engine", "transformer-engine-float16", "8", "bf32", "half", "true"]
)
def test_other_precisions_are_refused_by_name(precision: str, train: Train) -> None:
    ended = train(*SAMPLE, f"trainer.precision={precision}")
    assert ended.code == 1
    listed = "choose 32-true, 64-true, bf16-mixed, 16-mixed, bf16-true, 16-true or auto"
    assert "trainer.precision (the command line): received " in ended.error
    assert listed in ended.error


@pytest.mark.parametrize(
    ("short", "full"),
    [("16", "16-mixed"), ("null", "32-true")],
)
def test_short_names_are_recorded_as_full_ones(short: str, full: str, train: Train) -> None:
    folder = RunFolder(train(*SAMPLE, f"trainer.precision={short}").folder)
    assert folder.read_json("plan.json")["precision"] == full
    assert f"precision: {full}" in folder.config.read_text()
    folder.config.write_text(
        folder.config.read_text().replace(f"precision: {full}", f"precision: {short}")
    )
    assert evaluate(folder.path, None) == 0


def test_labels_keep_their_digits_in_half_precision() -> None:
    batch = {"features": torch.tensor([0.1]), "labels": torch.tensor([1234.5])}
    converted = precision_plugin("bf16-true", "cpu").convert_input(batch)
    assert converted["features"].dtype == torch.bfloat16
    assert converted["labels"] is batch["labels"]


@pytest.mark.parametrize("precision", ["bf16-true", "16-true"])
def test_half_precision_weights_are_warned_about(precision: str, train: Train) -> None:
    ended = train(*SAMPLE, f"trainer.precision={precision}", "plan=true")
    assert f"trainer.precision={precision}: weights have few digits" in ended.err + ended.out
