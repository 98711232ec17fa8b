"""Runs with merged and learned tokens and FDViT: resuming, freezing, devices, new predictions."""

import re
from pathlib import Path
from typing import cast

import lightning
import numpy as np
import pandas as pd
import pytest
import timm
import torch
from PIL import Image
from torch.nn import functional

import thaw
from datamodules.batches import FeatureBatch, ImageBatch
from engine.config.instantiating import build_object
from engine.config.recorded import read_trained_config
from lightning_modules.callbacks.layer_unfreezing import LayerUnfreezing
from lightning_modules.image_classifier import ImageClassifier
from lightning_modules.networks.backbones.image import image_encoder
from lightning_modules.networks.backbones.image_encoder import ImageEncoder
from lightning_modules.networks.tokens.errors import TokenError
from run_folders.errors import UserError
from run_folders.run_folder import RunFolder
from tests.conftest import SAMPLE, Train, identical
from tests.lightning_modules.test_unfreezing import stopped_and_resumed
from tests.processes import ONE_OF_TWO, run, run_ranks

VIT = (
    "{architecture: deit_tiny_distilled_patch16_224, img_size: 16, patch_size: 4, embed_dim: 24, "
    "num_heads: 2, depth: 3, drop_path_rate: 0.1}"
)
FDVIT = (
    "{architecture: fdvit, patch: 4, stride: 2, sizes: [7, 5], dims: [8, 12], heads: [2, 2], "
    "depth: [1, 1], drop_path: 0.1}"
)
OWN = "{architecture: token_learner_vit, image: 16, patch: 4, dim: 16, heads: 2, tokens: 3}"
RUNS = {
    "merged tokens": (VIT, "model.merge_tokens={merged: 2, inflection: -1}"),
    "learned tokens": (VIT, "model.learned_tokens={after: blocks.0, number: 3}"),
    "fused tokens": (VIT, "model.learned_tokens={after: blocks.0, number: 3, fuser: true}"),
    "token_learner_vit": (OWN, "model.lr=0.01"),
    "fdvit": (FDVIT, "model.reconstruction=0.03"),
}
SMALL = (
    "data=sample_images",
    "model=image_classifier",
    "data.rows={train: 48, val: 20, test: 20}",
    "data.batch_size=12",
    "trainer.max_epochs=2",
)
TIMES = ("seconds", "samples_per_second")


def overrides_of(name: str) -> tuple[str, ...]:
    backbone, more = RUNS[name]
    return (*SMALL, f"model.backbone={backbone}", more)


def changed_in(folder: Path) -> set[str]:
    """Parameters that the training of a run changed."""
    cfg = read_trained_config(folder / "config.yaml")
    lightning.seed_everything(cfg.seed, verbose=False)
    initial = dict(build_object(cfg, "model").network.named_parameters())
    checkpoint = torch.load(folder / "checkpoints" / "last.ckpt", weights_only=True)
    trained = checkpoint["state_dict"]
    return {n for n, weight in initial.items() if not torch.equal(weight, trained[f"network.{n}"])}


def history(folder: Path) -> list[dict[str, str]]:
    rows = RunFolder(folder).read_history()
    return [{key: value for key, value in row.items() if not key.endswith(TIMES)} for row in rows]


@pytest.mark.parametrize("name", RUNS)
def test_a_resumed_run_equals_an_uninterrupted_one(
    name: str, train: Train, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = train(*overrides_of(name), folder=tmp_path / "whole")
    assert whole.code == 0, whole.err
    stopped_and_resumed(train, overrides_of(name), 1, tmp_path / "stopped", monkeypatch)
    ours, theirs = (
        torch.load(folder / "checkpoints" / "last.ckpt", weights_only=True)
        for folder in (tmp_path / "stopped", whole.folder)
    )
    for part in ("state_dict", "optimizer_states"):
        assert identical(ours[part], theirs[part]), part
    assert history(tmp_path / "stopped") == history(whole.folder)
    again = thaw.Run(whole.folder, device="cpu").evaluate()
    recorded = RunFolder(whole.folder).read_json("metrics.json")["test"]
    assert all(recorded[metric] == value for metric, value in again.items())


@pytest.mark.parametrize("fuser", ["false", "true"])
def test_new_weights_train_in_a_frozen_backbone(fuser: str, train: Train) -> None:
    ended = train(
        *SMALL, f"model.backbone={VIT}", "model.freeze_backbone=true", "model.lr=0.01",
        f"model.learned_tokens={{after: blocks.0, number: 3, fuser: {fuser}}}", "cache.features=true",
    )  # fmt: skip
    assert ended.code == 0, ended.err
    task = thaw.Run(ended.folder).task()
    trained = {name for name, p in task.network.named_parameters() if p.requires_grad}
    new = {
        name
        for name, _ in task.network.named_parameters()
        if "token_learner" in name or "fuser" in name
    }
    assert trained == new | {"head.output.weight", "head.output.bias"}
    # The class tokens do not depend on the fuser of the last block.
    unread = {name for name in trained if "blocks.2.fuser" in name}
    assert trained - unread <= changed_in(ended.folder) <= trained
    assert {row["lr/features_new"] for row in history(ended.folder)} == {
        row["lr/head"] for row in history(ended.folder)
    }
    plan = RunFolder(ended.folder).read_json("plan.json")
    before = "blocks.token_learner" if fuser == "false" else "blocks.1"
    assert f"the backbone before {before}" in str(plan["features"])


def test_unfreezing_by_names_holds_with_learned_tokens() -> None:
    backbone = {"architecture": "vit_tiny_patch16_224", "img_size": 16, "patch_size": 4,
                "embed_dim": 24, "num_heads": 2, "depth": 3}  # fmt: skip
    plans = []
    for learned in (None, {"after": "blocks.0", "number": 3}):
        task = ImageClassifier(backbone, 3, learned_tokens=learned, lr=0.01, backbone_lr=0.1)
        LayerUnfreezing("blocks.2", layer_decay=0.5).set_plan(task)
        plans.append(task.freezing)
        trained = {
            ".".join(name.split(".")[2:4])
            for name, parameter in task.network.named_parameters()
            if parameter.requires_grad and name.startswith("features")
        }
        new = {"blocks.token_learner"} if learned else set()
        assert trained == {"blocks.2", "norm.weight", "norm.bias", *new}
    plain, learning = plans
    assert all(learning.groups[name] == group for name, group in plain.groups.items())
    added = learning.groups.keys() - plain.groups.keys()
    for name in added:
        suffix, factor = learning.groups[name]
        assert (suffix, factor) == ("_new", pytest.approx(0.1))


def test_the_plan_shows_tokens_and_multiplications(train: Train, tmp_path: Path) -> None:
    (tmp_path / "kept").touch()  # a plan leaves no empty folder
    ended = train(*SMALL, f"model.backbone={VIT}", "model.merge_tokens=3", "plan=true")
    found = re.findall(r"(blocks\.\d) *│ *(\d+) │ *([\d,]+)", ended.out)
    assert [(name, tokens) for name, tokens, _ in found] == [
        ("blocks.0", "15"),
        ("blocks.1", "12"),
        ("blocks.2", "9"),
    ]
    costs = [int(cost.replace(",", "")) for *_, cost in found]
    assert costs == sorted(costs, reverse=True)
    plain = train(*SMALL, f"model.backbone={VIT}", "plan=true").out
    assert [tokens for _, tokens in re.findall(r"(blocks\.\d) *│ *(\d+)", plain)] == ["18"] * 3
    stages = train(*SMALL, f"model.backbone={FDVIT}", "model.reconstruction=0.1", "plan=true").out
    assert [tokens for _, tokens in re.findall(r"(stages\.\d) *│ *(\d+)", stages)] == ["49", "25"]


def test_tokens_are_merged_in_evaluation_and_prediction_alone(train: Train, tmp_path: Path) -> None:
    folder = train(*SMALL, f"model.backbone={VIT}").folder
    code, out, errors = run(folder, "--merge-tokens", 3, program="scripts/evaluate.py")
    assert code == 0, errors
    assert "merge_tokens: 3" in out
    code, out, _ = run(folder, program="scripts/evaluate.py")
    assert "all metrics equal metrics.json" in out
    pixels = np.random.default_rng(0).integers(0, 256, (16, 16, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(tmp_path / "a.png")
    code, _, errors = run(
        folder, tmp_path / "a.png", "-o", tmp_path / "out.csv", "--merge-tokens", 3,
        program="scripts/predict.py",
    )  # fmt: skip
    assert code == 0, errors
    merged, plain = (
        thaw.Run(folder, device="cpu", merge_tokens=r).predict(pixels) for r in (3, None)
    )
    columns = [name for name in merged if name.startswith("probability")]
    written = pd.read_csv(tmp_path / "out.csv")
    np.testing.assert_allclose(written[columns], merged[columns], atol=1e-6)
    assert not np.allclose(merged[columns], plain[columns], atol=1e-4)
    thaw.Run(folder, merge_tokens=3).evaluate()
    blocks = thaw.Run(folder, merge_tokens=[3, 2, 0]).task().network.features.model.blocks
    assert [block.merged for block in blocks] == [3, 2, 0]
    code, out, errors = run(
        folder, "--merge-tokens", "{merged: 3, proportional: false}", program="scripts/evaluate.py"
    )
    assert code == 0, errors
    assert "merge_tokens: {'merged': 3, 'proportional': False}" in out
    for wrong, message in (
        (-1, "merge_tokens: received -1; at least 0 is needed"),
        ([1, -2, 3], "received -2"),
        ("many", "merge_tokens: received 'many'"),
        ([1, 2], "model.merge_tokens: received 2 numbers; give 3"),
    ):
        with pytest.raises(UserError, match=message):
            thaw.Run(folder, merge_tokens=wrong).task()  # type: ignore[arg-type]
    texts = train(*SAMPLE, folder=tmp_path / "texts").folder
    with pytest.raises(UserError, match="a TextClassifier has no vision transformer"):
        thaw.Run(texts, merge_tokens=3).task()


def test_a_number_keeps_how_a_run_merges(train: Train) -> None:
    folder = train(
        *SMALL, f"model.backbone={VIT}", "model.merge_tokens={merged: 2, proportional: false}"
    ).folder
    blocks = thaw.Run(folder, merge_tokens=3).task().network.features.model.blocks
    assert {(block.merged, block.proportional) for block in blocks} == {(3, False)}


def test_an_intact_checkpoint_is_not_called_damaged(train: Train, tmp_path: Path) -> None:
    refused = {
        "{architecture: resnet18}": "ResNet is no plain vision transformer",
        OWN: "TokenLearnerViT has blocks or attention of another kind",
    }
    for number, (backbone, message) in enumerate(refused.items()):
        folder = train(
            *SMALL,
            f"model.backbone={backbone}",
            "trainer.max_epochs=1",
            folder=tmp_path / str(number),
        ).folder
        code, _, errors = run(folder, "--merge-tokens", 3, program="scripts/evaluate.py")
        assert code == 1
        assert f"model.merge_tokens: {message}" in errors
        assert "damaged" not in errors


@pytest.mark.parametrize(
    ("name", "more"),
    [
        ("merged tokens", ()),
        ("learned tokens", ()),
        ("fused tokens", ()),
        ("token_learner_vit", ("+model.backbone.dropout=0.0",)),
        ("fdvit", ("model.reconstruction_masked=0.0",)),
    ],
)
def test_two_devices_train_as_one(
    name: str, more: tuple[str, ...], train: Train, tmp_path: Path
) -> None:
    """Without random numbers, which differ by the samples of a process."""
    overrides = [
        word.replace("_rate: 0.1", "_rate: 0.0").replace("drop_path: 0.1", "drop_path: 0.0")
        for word in overrides_of(name)
    ]
    one = train(*overrides, *more, folder=tmp_path / "one")
    assert one.code == 0, one.err
    ranks = run_ranks(2, *overrides, *more, *ONE_OF_TWO, f"hydra.run.dir={tmp_path / 'two'}")
    assert [code for code, _, _ in ranks] == [0, 0], ranks
    losses = [
        [float(row["train/loss"]) for row in history(tmp_path / name)] for name in ("one", "two")
    ]
    assert losses[1] == pytest.approx(losses[0], rel=1e-4)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        (("model.merge_tokens=2", "model.learned_tokens={after: blocks.0, number: 3}"), "set only one of them"),
        (("model.reconstruction=0.1",), "has no decoders; choose fdvit"),
        (("model.learned_tokens={after: blocks.0, number: 3}", "model.backbone_lr=0"), "new parts of the backbone would not train"),
        (("model.learned_tokens={after: blocks.7, number: 3}",), "received 'blocks.7', which is no block"),
        (("model.merge_tokens=[1,2]",), "received 2 numbers; give 3, one for each block"),
    ],
)  # fmt: skip
def test_settings_that_contradict_each_other(
    settings: tuple[str, ...], message: str, train: Train
) -> None:
    ended = train(*SMALL, f"model.backbone={VIT}", *settings)
    assert ended.code == 1
    assert message in ended.error
    assert "Traceback" not in ended.err


def test_a_frozen_fdvit_is_not_reconstructed() -> None:
    backbone = {"architecture": "fdvit", "patch": 4, "stride": 2, "sizes": [7, 5], "dims": [8, 12],
                "heads": [2, 2], "depth": [1, 1]}  # fmt: skip
    with pytest.raises(TokenError, match="freeze_backbone=true"):
        ImageClassifier(backbone, 3, freeze_backbone=True, reconstruction=0.1)


def test_stored_features_of_a_frozen_fdvit_have_no_reconstruction_loss() -> None:
    backbone = {"architecture": "fdvit", "patch": 4, "stride": 2, "sizes": [7, 5], "dims": [8, 12],
                "heads": [2, 2], "depth": [1, 1]}  # fmt: skip
    task = ImageClassifier(backbone, 3, reconstruction=0.1).train()
    batch = FeatureBatch(
        features=torch.zeros(2, 12), labels=torch.tensor([0, 1]), index=torch.arange(2)
    )
    logits, auxiliary = task.logits_and_auxiliary_loss(batch)
    assert (logits.shape, auxiliary) == ((2, 3), None)


def test_the_reconstruction_loss_is_a_part_of_the_training_loss_alone() -> None:
    backbone = {"architecture": "fdvit", "patch": 4, "stride": 2, "sizes": [7, 5], "dims": [8, 12],
                "heads": [2, 2], "depth": [1, 1]}  # fmt: skip
    task = ImageClassifier(backbone, 3, reconstruction=0.5, reconstruction_masked=0.0)
    batch = ImageBatch(
        pixel_values=torch.randint(0, 256, (4, 3, 16, 16), dtype=torch.uint8),
        labels=torch.tensor([0, 1, 2, 0]),
        index=torch.arange(4),
    )
    totals = task.new_totals(keep_samples=False)
    loss = task.train().shared_step(batch, totals)
    features = cast(ImageEncoder, task.features)
    pooled, reconstruction = features.forward_with_reconstruction(batch, 0.0)
    plain = functional.cross_entropy(task.network.head(pooled), batch["labels"])
    assert loss.item() == pytest.approx((plain + 0.5 * reconstruction).item())
    assert totals.result().metrics["loss"] == pytest.approx(plain.item())
    with torch.no_grad():
        measured = task.eval().shared_step(batch, task.new_totals(keep_samples=False))
        assert measured.item() == pytest.approx(plain.item(), rel=1e-5)
        assert task.logits_and_auxiliary_loss(batch)[1] is None


def test_a_finished_run_without_new_parts_is_a_backbone(train: Train, tmp_path: Path) -> None:
    first = train(*SMALL, f"model.backbone={VIT}", folder=tmp_path / "first")
    assert first.code == 0, first.err
    second = train(
        *SMALL, f"model.backbone={first.folder}", "model.freeze_backbone=true",
        "model.learned_tokens={after: blocks.0, number: 3}", folder=tmp_path / "second",
    )  # fmt: skip
    assert second.code == 0, second.err


def test_costs_of_an_own_network_without_a_stated_size() -> None:
    network = timm.create_model(
        "vit_tiny_patch16_224", num_classes=0, img_size=32, patch_size=8, embed_dim=24, num_heads=2, depth=2
    )  # fmt: skip
    encoder = image_encoder(network, None, None, merged=3)
    assert [cost.tokens for cost in encoder.block_costs()] == [14, 11]
