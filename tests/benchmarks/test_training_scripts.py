"""The scripts that train both sides return their rows, with small networks and few samples."""

import re
from argparse import Namespace
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode
from transformers import AutoModel

from benchmarks import (
    framework,
    image_head,
    image_prefix,
    image_runs,
    text_features,
    text_finetuning,
    turns,
)
from benchmarks.rows import Row
from benchmarks.text_runs import ThawRun, forward_operations
from tests.images import cifar_like

# Allowed relative errors of the gradient in training on stored features: in bfloat16, if the device
# supports it, and in float32.
_GRADIENT, _EXACT = 5e-3, 1e-5


@pytest.fixture
def text_arguments(covid_dir: Path, tiny_backbone: Path) -> Namespace:
    """Command-line arguments of the text benchmarks."""
    return Namespace(
        data_dir=covid_dir,
        backbone=str(tiny_backbone),
        repetitions=1,
        device="cpu",
        threads=1,
        head=["linear", "bigru"],
        work=None,
    )


@pytest.fixture(autouse=True)
def _quick(monkeypatch: pytest.MonkeyPatch) -> None:
    for script in (text_finetuning, text_features, image_head, image_prefix):
        monkeypatch.setattr(script, "operations_per_second", lambda *_: 1e12)
    monkeypatch.setattr(turns, "_START", "fork")  # so that child processes have the patched values
    monkeypatch.setattr(text_features, "_EPOCHS", 2)


def check(row: Row, *baselines: str) -> None:
    """Check that every side was measured, and that the row has Thaw's quality and goals."""
    assert set(row.sides) == {"Thaw", *baselines}
    assert all(seconds > 0 for side in row.sides.values() for seconds in side.seconds)
    assert row.sides["Thaw"].quality
    assert row.goals


def test_fine_tuning(text_arguments: Namespace) -> None:
    (row,) = text_finetuning.measure(text_arguments)
    check(row, "default", "tuned", "Thaw in float32")
    assert all(side.quality.startswith("val acc 0.") for side in row.sides.values())
    assert row.limit is not None


def test_heads_on_a_frozen_encoder(text_arguments: Namespace) -> None:
    rows = list(text_features.measure(text_arguments))
    assert [row.key for row in rows] == ["S2 linear", "S2 bigru"]
    for row in rows:
        check(row, "default", "tuned", "Thaw with the test split")
        qualities = {name: side.quality.rpartition(" ")[0] for name, side in row.sides.items()}
        assert qualities.pop("Thaw with the test split") == "test acc"
        assert qualities == {
            "Thaw": "val acc",
            "default": "val acc after one epoch",
            "tuned": "val acc",
        }


def test_the_framework_is_compared_with_a_loop(text_arguments: Namespace) -> None:
    rows = list(framework.measure(text_arguments))
    assert len(rows) == 2
    for row in rows:
        check(row, "default", "tuned")
        assert [goal.what.rpartition(" ")[2] for goal in row.goals] == ["default", "tuned"]
        assert all(goal.less for goal in row.goals)


@pytest.mark.parametrize(
    ("experiment", "stored"),
    [("minilm_feature", True), ("minilm_bigru_feature", True), ("minilm_finetune", False)],
)
def test_the_loop_trains_the_same_weights_as_the_framework(
    experiment: str, stored: bool, text_arguments: Namespace, tmp_path: Path
) -> None:
    overrides = {
        "data.max_length": 32,
        "trainer.max_epochs": 2,
        "trainer.precision": "32-true",
        "model.head.dropout": 0.0,
    }
    results: list[dict[str, torch.Tensor]] = []
    for make in (framework.ThawWithBar, framework.PlainLoop, framework.TunedLoop):
        run = make(experiment, text_arguments, overrides, features=tmp_path if stored else "none")
        network = run.prepare(1)
        for module in network.modules():
            if isinstance(module, torch.nn.Dropout):
                module.p = 0.0  # the sides draw different random numbers
        initial = {name: value.clone() for name, value in network.state_dict().items()}
        accuracy = run.train()
        results.append({"accuracy": torch.tensor(accuracy), **network.state_dict()})
        assert not torch.equal(initial["head.output.weight"], results[-1]["head.output.weight"])
    for loop in results[1:]:
        torch.testing.assert_close(loop, results[0], rtol=1e-4, atol=1e-5)


def test_operations_equal_torchs_count(text_arguments: Namespace) -> None:
    run = ThawRun("minilm_finetune", text_arguments, {"data.max_length": 128})
    run.prepare(1)
    texts = run.datamodule.tokenized["val"]
    encoder: Any = AutoModel.from_pretrained(
        text_arguments.backbone, add_pooling_layer=False, attn_implementation="eager"
    )
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        for row in range(len(texts)):
            ids = texts[row][0][None].long()
            encoder(input_ids=ids, attention_mask=torch.ones_like(ids))
    assert forward_operations(run, "val") == pytest.approx(counter.get_total_flops(), rel=0.02)


@pytest.mark.parametrize(
    ("script", "architecture", "keys"),
    [
        (image_head, "vit_tiny_patch16_224", "S4"),
        (image_prefix, "deit_tiny_distilled_patch16_224", "S3 plain, S3 flip"),
    ],
)
def test_images(
    script: ModuleType,
    architecture: str,
    keys: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    for module in (script, image_runs):
        monkeypatch.setattr(module, "IMAGES", 20)
        monkeypatch.setattr(module, "EPOCHS", 2)
    monkeypatch.setattr(image_runs, "_VAL_IMAGES", 10)  # one of each class
    monkeypatch.setattr(script, "_BATCH", 10)
    monkeypatch.setattr(script, "_STEPS", {"default": 2, "tuned": 2})
    monkeypatch.setattr(script, "_WIDTH", 192)
    monkeypatch.setattr(script, "_NAME", architecture)
    cifar_like(tmp_path, 40, 10)
    rows = list(
        script.measure(Namespace(data_dir=tmp_path, repetitions=1, device="cpu", threads=1))
    )
    assert ", ".join(row.key for row in rows) == keys
    for row in rows:
        check(row, "default", "tuned")
        half, whole = (
            float(number)
            for number in re.findall(r"gradient ([0-9.e+-]+)", row.sides["Thaw"].quality)
        )
        assert half < _GRADIENT
        assert whole < _EXACT
