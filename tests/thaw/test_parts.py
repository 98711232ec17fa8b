"""Thaw's parts under a Trainer of Lightning, and wrong arguments in Python."""

from functools import partial
from pathlib import Path
from typing import Any

import lightning
import pytest
import torch

import thaw
from tests.conftest import made_rows, write_csv

BACKBONE = {
    "model_type": "bert", "vocab_size": 120, "hidden_size": 8, "num_hidden_layers": 2,
    "num_attention_heads": 2, "intermediate_size": 8,
}  # fmt: skip
PIXELS = {"architecture": "small_resnet", "widths": [4, 4], "depth": 1}


def trainer(tmp_path: Path, *callbacks: lightning.Callback) -> lightning.Trainer:
    return lightning.Trainer(
        max_epochs=1, accelerator="cpu", default_root_dir=tmp_path, callbacks=list(callbacks),
        logger=False, enable_progress_bar=False, enable_model_summary=False,
    )  # fmt: skip


@pytest.mark.filterwarnings("ignore")
def test_texts_under_a_plain_trainer(tiny_backbone: Path, tmp_path: Path) -> None:
    """Layers before the start layer stay as they are."""
    for split, count in (("train", 24), ("val", 8), ("test", 8)):
        write_csv(
            tmp_path / "moods" / f"{split}.csv", made_rows(count, count), ("id", "text", "label")
        )
    data = thaw.TextDataModule(
        folder=str(tmp_path / "moods"),
        classes=["fake", "real"],
        tokenizer=str(tiny_backbone),
        batch_size=8,
    )
    task = thaw.TextClassifier(BACKBONE, num_classes=2)
    before = {name: value.clone() for name, value in task.state_dict().items()}
    fitted = trainer(tmp_path, thaw.LayerUnfreezing(start_layer="encoder.layer.1"))
    fitted.fit(task, data)
    changed = {name for name, value in task.state_dict().items() if not value.equal(before[name])}
    assert changed
    assert not [name for name in changed if "embeddings" in name or "layer.0" in name]
    assert "test/acc" in fitted.test(task, data, verbose=False)[0]


@pytest.mark.parametrize(
    ("build", "message"),
    [
        (lambda: thaw.TextClassifier(BACKBONE, 1), "num_classes: received 1; at least 2 is needed"),
        (lambda: thaw.ImageClassifier(PIXELS, 0), "num_classes: received 0; at least 2 is needed"),
        (
            lambda: thaw.TextClassifier(BACKBONE, 2, lr=-1.0),
            "TextClassifier: lr: received -1.0; at least 0 is needed",
        ),
        (
            lambda: thaw.TextClassifier(BACKBONE, 2, pooling="max"),
            "TextClassifier: pooling: received 'max'; one of ",
        ),
        (
            lambda: thaw.ImageClassifier(PIXELS, 2, image_size=1),
            "ImageClassifier: image_size: received 1; at least 2 is needed",
        ),
        (
            lambda: thaw.Segmenter({"model_type": "segformer"}, 2, auxiliary_weight=-1),
            "Segmenter: auxiliary_weight: received -1; at least 0 is needed",
        ),
        (
            lambda: thaw.TextDataModule("moods", tokenizer={"vocab_size": 60}, max_length=1),
            "TextDataModule: max_length: received 1; at least 3 is needed",
        ),
        (
            lambda: thaw.TextDataModule("moods", tokenizer="x", cleaning={"htlm": True}),
            "TextDataModule: cleaning.htlm: unknown key; did you mean html?",
        ),
        (
            lambda: thaw.ImageDataModule("birds", batch_size=0),
            "ImageDataModule: batch_size: received 0; at least 1 is needed",
        ),
        (
            lambda: thaw.SegmentationDataModule("rooms", size=1),
            "SegmentationDataModule: size: received 1; at least 2 is needed",
        ),
        (
            lambda: thaw.SampleTextDataModule(eval_batch_size="big"),
            "TextDataModule: eval_batch_size: received 'big'; int is needed",
        ),
        (
            lambda: thaw.LayerUnfreezing("encoder.layer.1", layer_decay=2),
            "LayerUnfreezing: layer_decay: received 2; above 0 and at most 1 is needed",
        ),
        (lambda: thaw.ImageDataModule(5), "ImageDataModule: folder: received 5; str is needed"),  # type: ignore[arg-type]
        (
            lambda: thaw.TextDataModule("moods", "x", {}),  # type: ignore[typeddict-item]
            "TextDataModule: files.test: is missing",
        ),
        (lambda: thaw.LayerUnfreezing(), "exactly one of start_layer, schedule and last_blocks"),
        (
            lambda: thaw.TextClassifier(BACKBONE, 2, head=partial(thaw.BiGRUHead, hidden=0)),
            "BiGRUHead: hidden: received 0; at least 1 is needed",
        ),
        (lambda: thaw.MLPHead(2, 2, [0]), "MLPHead: hidden: received 0; at least 1 is needed"),
        (lambda: thaw.LinearHead(2, 2, 1.0), "LinearHead: dropout: received 1.0; 0 to 0.999"),
        (lambda: thaw.CrossEntropy(1.0), "CrossEntropy: label_smoothing: received 1.0; 0 to 0.999"),
        (
            lambda: thaw.TextClassifier(BACKBONE, 2, loss=thaw.CrossEntropy),
            "model.loss: received the class CrossEntropy; give an instance: CrossEntropy()",
        ),
        (
            lambda: thaw.ImageClassifier(PIXELS, 2, loss="cross_entropy"),
            "model.loss: received 'cross_entropy'; a torch.nn.Module is needed",
        ),
        (
            lambda: thaw.UpsampledCrossEntropy("much"),
            "UpsampledCrossEntropy: label_smoothing: received 'much'; float is needed",
        ),
    ],
)
def test_a_wrong_argument_is_one_line(build: Any, message: str) -> None:
    with pytest.raises(thaw.UserError) as error:
        build()
    assert message in str(error.value)
    assert "\n" not in str(error.value)


def test_a_layer_that_does_not_exist_is_named_before_training(tmp_path: Path) -> None:
    task = thaw.TextClassifier(BACKBONE, num_classes=2)
    unfreezing = thaw.LayerUnfreezing(start_layer="nonsense")
    with pytest.raises(thaw.UserError, match="nonsense"):
        trainer(tmp_path, unfreezing).fit(task, thaw.SampleTextDataModule())


def test_a_vocabulary_larger_than_the_network_is_named_before_training(tmp_path: Path) -> None:
    task = thaw.TextClassifier(BACKBONE, num_classes=2)
    ids = r"data.tokenizer: it has \d+ ids; the backbone has 120: they belong to different models"
    with pytest.raises(thaw.UserError, match=f"the data does not fit the backbone\n  {ids}"):
        trainer(tmp_path).fit(task, thaw.SampleTextDataModule())


def test_a_copy_of_a_task_is_built_from_its_hyperparameters() -> None:
    """They are those of all constructors, checked or not."""
    task = thaw.TextClassifier(BACKBONE, num_classes=2, lr=0.5)
    assert task.hparams["lr"] == 0.5
    assert task.hparams["num_classes"] == 2
    assert torch.is_tensor(next(task.parameters()))
