"""`model.backbone=RUN`: a finished run's backbone starts another run."""

import hashlib
import json
import shutil
from pathlib import Path

import numpy as np
import pandas as pd
import torch

from engine.evaluation import evaluate
from engine.predict import predict
from run_folders.run_folder import RunFolder
from tests.conftest import LINEAR_SAMPLE, SAMPLE, Ended, Train, identical
from tests.engine.test_precisions import IMAGES, SCENES
from tests.images import COLOURS, image_folder
from tests.masks import class_list, segmentation_folder

BACKBONE = "network.features.model."
# Nothing of the backbone changes, so its weights in the checkpoint are those it began with.
FROZEN = ("model.freeze_backbone=true", "trainer.max_epochs=1")
NEW_IMAGES = tuple(key for key in IMAGES if "widths" not in key and "image_size" not in key)


def backbone_of(folder: Path) -> dict[str, torch.Tensor]:
    state = torch.load(RunFolder(folder).best_checkpoint, weights_only=True)["state_dict"]
    return {name: value for name, value in state.items() if name.startswith(BACKBONE)}


def checked(first: Path, second: Ended) -> RunFolder:
    """Check weights and provenance of the second run; then delete the first one and evaluate."""
    assert second.code == 0, second.err
    folder = RunFolder(second.folder)
    before, after = backbone_of(first), backbone_of(folder.path)
    assert after
    assert identical({name: before[name] for name in after}, after)
    content = RunFolder(first).best_checkpoint.read_bytes()
    facts = folder.read_json("provenance.json")["backbone"]
    assert facts["run"] == str(first)
    assert facts["checkpoint_sha256"] == hashlib.sha256(content).hexdigest()
    data = RunFolder(first).read_json("provenance.json")["data"]
    assert facts["data"]["train"]["sha256"] == data["train"]["sha256"]
    assert str(first) in folder.report.read_text()
    shutil.rmtree(first)
    assert evaluate(folder.path, None) == 0
    return folder


def test_texts_start_from_a_run_with_another_head_and_tokenizer(
    train: Train, tmp_path: Path
) -> None:
    first = train(*SAMPLE, "data.tokenizer={vocab_size: 300}", folder=tmp_path / "first").folder
    tokenizers = [
        torch.load(RunFolder(first).best_checkpoint, weights_only=True)["SampleTextDataModule"]
    ]
    overrides = (
        *(key for key in LINEAR_SAMPLE if "num_hidden_layers" not in key), *FROZEN, "model.pooling=mean", "model.backbone=first", "data.rows={train: 40, val: 20, test: 20}",
    )  # fmt: skip
    second = train(*overrides, folder=tmp_path / "second")
    folder = checked(first, second)
    tokenizers.append(torch.load(folder.best_checkpoint, weights_only=True)["SampleTextDataModule"])
    assert identical(*tokenizers)
    (tmp_path / "new.csv").write_text("text\nmasks help\n")
    out = pd.read_csv(predict(folder.path, [tmp_path / "new.csv"], tmp_path / "out.csv"))
    assert np.isfinite(out["probability_fake"]).all()
    # It also resumes without the first run, which was given by a relative path.
    before, facts = backbone_of(folder.path), folder.read_json("provenance.json")["backbone"]
    resume = ("trainer.max_epochs=2", "ckpt_path=last")
    resumed = train(*overrides, *resume, folder=folder.path)
    assert resumed.code == 0, resumed.err
    assert len(folder.read_history()) == 2
    assert identical(before, backbone_of(folder.path))
    assert folder.read_json("provenance.json")["resumed"][0]["backbone"] == facts
    other = train(*overrides, *resume, "model.backbone=other", folder=folder.path)
    assert f"model.backbone was '{first}' and is 'other'" in other.error


def test_images_start_from_a_run_with_other_classes(train: Train, tmp_path: Path) -> None:
    image_folder(tmp_path / "data" / "colours", {"train": 4, "val": 2, "test": 2})
    data = f"paths.data_dir={tmp_path / 'data'}"
    first = train(*IMAGES, data, "trainer.max_epochs=1", folder=tmp_path / "first").folder
    three = list(COLOURS)[:3]
    for split in ("train", "val", "test"):
        for colour in list(COLOURS)[3:]:
            shutil.rmtree(tmp_path / "data" / "colours" / split / colour)
    second = train(
        *NEW_IMAGES, data, *FROZEN, f"data.classes=[{','.join(three)}]", "data.num_classes=3", f"model.backbone={first}", folder=tmp_path / "second",
    )  # fmt: skip
    folder = checked(first, second)
    checkpoint = torch.load(folder.best_checkpoint, weights_only=True)
    assert json.loads(checkpoint["thaw"]["backbone"])["size"] == [24, 24]


def test_masks_start_from_the_encoder_of_a_run(train: Train, tmp_path: Path) -> None:
    segmentation_folder(tmp_path / "data" / "rooms", {"train": 8, "val": 3, "test": 3})
    class_list(tmp_path / "rooms.yaml")
    overrides = (*SCENES, f"data.class_list={tmp_path / 'rooms.yaml'}", f"paths.data_dir={tmp_path / 'data'}")  # fmt: skip
    first = train(*overrides, folder=tmp_path / "first").folder
    second = train(
        *overrides,
        *FROZEN,
        "model=segmenter",
        f"model.backbone={first}",
        folder=tmp_path / "second",
    )
    checked(first, second)


def test_what_cannot_start_a_run_is_refused(train: Train, tmp_path: Path) -> None:
    first = train(*SAMPLE, "trainer.max_epochs=1", folder=tmp_path / "first").folder
    given = f"model.backbone={first}"
    other = tmp_path / "other"
    linear = tuple(key for key in LINEAR_SAMPLE if "num_hidden_layers" not in key)

    def refused(*overrides: str) -> str:
        ended = train(*overrides, folder=other)
        assert ended.code == 1
        assert "Traceback" not in ended.err
        return ended.error

    assert "this run reads texts, and this config images; give a run with images" in refused(
        "data=sample_images", "model=image_classifier", given
    )
    assert "this run reads texts, and this config other data" in refused(
        "data=sample_scenes", "model=segmenter", given
    )
    assert "pooler.dense.weight is missing in this run and (64, 64) in this model" in refused(
        *linear, "model.pooling=pooler", given
    )
    assert "leave data.tokenizer=bert-base-uncased out" in refused(
        *linear, "data.tokenizer=bert-base-uncased", given
    )
    best = RunFolder(first).best_checkpoint
    assert f"model.backbone (the command line): received a checkpoint of a run; set model.backbone={first}" in refused(*linear, f"model.backbone={best}")  # fmt: skip
    assert f"model.weights (the command line): received a checkpoint of a run; set model.backbone={first}" in refused("model=image_classifier", "data=sample_images", f"model.weights={best}")  # fmt: skip
    status = RunFolder(first).read_json("status.json")
    RunFolder(first).write_json("status.json", {**status, "state": "interrupted"})
    assert "this run has not finished (its state is interrupted)" in refused(*linear, given)
    RunFolder(first).write_json("status.json", status)
    (first / "config.yaml").write_text("model: bert\nbatch_size: 3\n")
    assert "no run of train.py" in refused(*linear, given)
