"""Unfreezing by plan: which layers train in which epoch, with resumes, schedules and DDP."""

import hashlib
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import lightning
import pytest
import torch
from torch import nn
from torchvision.models import densenet201

from engine.config.signatures import signature_faults
from lightning_modules.callbacks.layer_unfreezing import LayerUnfreezing
from lightning_modules.image_classifier import ImageClassifier
from lightning_modules.networks.classifier import Classifier
from lightning_modules.networks.freezing.layers import layer_numbers, parameters_from
from lightning_modules.networks.freezing.plan import FreezingError, FreezingPlan, apply_plan
from lightning_modules.networks.heads.classification import BiGRUHead, MLPHead
from lightning_modules.text_classifier import TextClassifier
from run_folders.run_folder import RunFolder
from tests.conftest import Train, identical
from tests.images import cifar_like
from tests.lightning_modules.test_image_networks import BACKBONES
from tests.processes import run_ranks

RESNET = {"architecture": "small_resnet", "widths": [8, 8, 8], "depth": 1}
BERT = {
    "model_type": "bert", "vocab_size": 50, "hidden_size": 16, "num_hidden_layers": 3, "num_attention_heads": 2,
    "intermediate_size": 24,
}  # fmt: skip


# Parameters of the last dense block and of the norm after it, in torchvision's network.
DENSE_BLOCK = sum(
    p.numel()
    for name, p in densenet201(weights=None).named_parameters()
    if name.startswith(("features.denseblock4", "features.norm5"))
)


def trainable(network: nn.Module) -> int:
    return sum(p.numel() for p in network.parameters() if p.requires_grad)


@pytest.mark.parametrize(
    ("architecture", "size", "layer", "backbone", "total"),
    [
        ("vgg19", 32, "features.28", 9_439_232, 9_638_922),
        ("deit_base_distilled_patch16_224", None, "blocks.11", 7_089_408, 7_354_634),
        ("densenet201", 32, "features.denseblock4", DENSE_BLOCK, None),
    ],
)
def test_published_counts(
    architecture: str, size: int | None, layer: str, backbone: int, total: int | None
) -> None:
    task = ImageClassifier({"architecture": architecture}, 10, image_size=size, head=MLPHead)
    LayerUnfreezing(layer).set_plan(task)
    assert trainable(task.network.features) == backbone
    assert total in (None, trainable(task.network))
    frozen = [
        name for name, p in task.network.features.model.named_parameters() if not p.requires_grad
    ]
    trains = [name for name, p in task.network.features.model.named_parameters() if p.requires_grad]
    assert trains[0].startswith(f"{layer}.")
    assert [name for name, _ in task.network.features.model.named_parameters()] == frozen + trains


def test_stage_of_a_convnet_and_layer_of_a_text_encoder() -> None:
    convnext = ImageClassifier(BACKBONES["convnext"], 3)
    LayerUnfreezing("stages.3").set_plan(convnext)
    names = {
        name.partition(".")[0]
        for name, p in convnext.network.features.model.named_parameters()
        if p.requires_grad
    }
    assert names == {"stages", "head"}
    text = TextClassifier(BERT, 2, head=partial(BiGRUHead, hidden=4))
    LayerUnfreezing("encoder.layer.2").set_plan(text)
    for name, parameter in text.network.features.model.named_parameters():
        assert parameter.requires_grad == name.startswith("encoder.layer.2."), name
    text.train()
    assert not text.network.features.model.embeddings.training
    assert text.network.features.model.encoder.layer[2].training


def test_gradual_schedule_is_a_function_of_the_epoch() -> None:
    task = ImageClassifier(RESNET, 3)
    LayerUnfreezing(schedule={0: None, 2: "stages.2", 3: "stages.1", 5: "all"}).set_plan(task)
    expected = {0: 0, 1: 0, 2: 1, 3: 2, 4: 2, 5: 4, 9: 4}
    for epoch in (5, 0, 2, 9, 1, 3, 4):  # in any order: nothing is accumulated
        apply_plan(task.network, task.freezing, epoch)
        parts = [task.network.features.model.stem, *task.network.features.model.stages]
        assert (
            sum(all(p.requires_grad for p in part.parameters()) for part in parts)
            == expected[epoch]
        )
        assert (
            sum(any(p.requires_grad for p in part.parameters()) for part in parts)
            == expected[epoch]
        )
        assert all(p.requires_grad for p in task.network.head.parameters())


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"start_layer": "stage.2"}, r"no layer is called 'stage\.2'; the nearest are stages\.2"),
        (
            {"schedule": {0: "stages.1", 2: "stages.2"}},
            r"epoch 2 with start layer stages\.2 would freeze layers that already train",
        ),
        (
            {"schedule": {0: "stages.1", 2: None}},
            r"epoch 2 with start layer None would freeze layers that already train",
        ),
        ({}, r"needs exactly one of start_layer, schedule and last_blocks"),
        (
            {"start_layer": "all", "schedule": {0: "all"}},
            r"needs exactly one of start_layer, schedule and last_blocks",
        ),
        ({"schedule": {-1: "all"}}, r"received epoch -1; a whole number from 0"),
        (
            {"schedule": {0: "all"}, "lr_factors": {1: 0.5}},
            r"lr_factors: received epoch 1; the schedule has 0",
        ),
        (
            {"schedule": {0: "all"}, "lr_factors": {0: -1}},
            r"lr_factors: received -1 for epoch 0; a number above 0",
        ),
        ({"schedule": {0: 28}}, r"schedule: received 28 for epoch 0; the name of a layer or null"),
        ({"schedule": {}}, r"schedule is empty"),
        ({"start_layer": "stem.2"}, r"layer 'stem\.2' has no parameters"),
    ],
)
def test_an_invalid_plan_is_rejected(settings: dict[str, object], message: str) -> None:
    task = ImageClassifier(RESNET, 3)
    with pytest.raises(FreezingError, match=message):
        LayerUnfreezing(**settings).set_plan(task)  # type: ignore[arg-type]


@pytest.mark.parametrize("decay", [0, 1.5])
def test_a_layer_decay_out_of_its_range_is_rejected(decay: float) -> None:
    node = {"start_layer": "all", "layer_decay": decay}
    fault = f"received {decay}; above 0 and at most 1 is needed"
    assert list(signature_faults(LayerUnfreezing, node, "at")) == [("at.layer_decay", fault)]


def test_a_frozen_backbone_and_unfreezing_contradict_each_other() -> None:
    task = ImageClassifier(RESNET, 3, freeze_backbone=True)
    with pytest.raises(FreezingError, match=r"model.freeze_backbone=true"):
        LayerUnfreezing("stages.2").set_plan(task)
    free = ImageClassifier(RESNET, 3)
    callback = LayerUnfreezing("stages.2")
    callback.set_plan(free)
    callback.set_plan(free)  # Lightning's setup does so after the engine


def test_a_single_late_stage_begins_with_the_head_alone_and_keeps_its_factor() -> None:
    task = ImageClassifier(RESNET, 3)
    LayerUnfreezing(schedule={3: "all"}, lr_factors={3: 0.1}).set_plan(task)
    assert task.freezing.stages == {0: None, 3: "all"}
    assert {
        task.freezing.group(f"features.model.{name}")
        for name, _ in task.network.features.model.named_parameters()
    } == {("_epoch3", 0.1)}
    LayerUnfreezing("stages.2", lr_factors={0: 0.5}).set_plan(other := ImageClassifier(RESNET, 3))
    assert other.freezing.group("features.model.stages.2.down.0.weight") == ("", 0.5)


def test_layer_decay_equals_timms() -> None:
    """Every parameter has the same factor as in timm's parameter groups."""
    from timm.optim import param_groups_layer_decay

    task = ImageClassifier(BACKBONES["beit"], 3)
    LayerUnfreezing("all", layer_decay=0.7).set_plan(task)
    backbone = task.network.features.model
    theirs = {
        id(p): group["lr_scale"]
        for group in param_groups_layer_decay(backbone, 0.05, layer_decay=0.7)
        for p in group["params"]
    }
    for name, parameter in backbone.named_parameters():
        assert task.freezing.group(f"features.model.{name}")[1] == pytest.approx(
            theirs[id(parameter)]
        ), name


def test_layer_numbers_of_a_network_without_a_matcher() -> None:
    text = TextClassifier(BERT, 2, pooling="pooler")
    numbers = layer_numbers(text.network.features.model)
    assert numbers["embeddings.word_embeddings.weight"] == 0
    assert [numbers[f"encoder.layer.{i}.output.dense.weight"] for i in range(3)] == [1, 2, 3]
    assert numbers["pooler.dense.weight"] == 4
    LayerUnfreezing("all", layer_decay=0.5).set_plan(text)
    assert text.freezing.group("features.model.embeddings.word_embeddings.weight") == (
        "_below4",
        0.5**4,
    )


def test_parameters_from_a_layer_or_a_parameter() -> None:
    beit = ImageClassifier(BACKBONES["beit"], 3).network.features.model
    names = [name for name, _ in beit.named_parameters()]
    assert parameters_from(beit, names[0]) == names
    assert parameters_from(beit, "blocks.1")[0].startswith("blocks.1.")
    assert "fc_norm.weight" in parameters_from(beit, "blocks.1")


def test_modules_before_the_start_layer_are_in_eval_even_without_parameters() -> None:
    """Dropout, and a BatchNorm that has statistics but no weights."""
    features = nn.Sequential(
        nn.Linear(3, 3),
        nn.BatchNorm1d(3, affine=False),
        nn.Dropout(),
        nn.Linear(3, 3),
        nn.Dropout(),
    )
    network = nn.ModuleDict(
        {"features": features, "head": nn.Sequential(nn.Dropout(), nn.Linear(3, 2))}
    )
    apply_plan(network.train(), FreezingPlan({"features": None, "features.3": 0}), 0)
    assert [module.training for module in features] == [False, False, False, True, True]
    assert [module.training for module in network["head"]] == [True, True]


# Real fits.

OVERRIDES = (
    "data=cifar10", "model=image_classifier", "data.batch_size=8", "model.lr=0.01", "model.backbone_lr=0.01",
    "model.backbone={architecture: small_resnet, widths: [8, 8, 8], depth: 1}",
)  # fmt: skip
UNFREEZING = "callbacks.unfreezing.schedule={0: null, 1: stages.2, 3: stages.1}"
# Name -> overrides that choose the schedule without a warm-up.
SCHEDULES = {
    **{
        name: (f"schedule={name}", "model.schedule.warmup=0")
        for name in ("linear", "cosine", "onecycle")
    },
    "exponential": ("schedule=exponential", "model.schedule.decay=0.5"),
    "plateau": ("schedule=plateau", "model.schedule.patience=0", "model.schedule.decay=0.5"),
}


def digests(task: lightning.LightningModule) -> dict[str, str]:
    state = task.network.features.model.state_dict()  # type: ignore[union-attr]
    return {
        name: hashlib.sha256(value.numpy().tobytes()).hexdigest() for name, value in state.items()
    }


@pytest.fixture
def watched(monkeypatch: pytest.MonkeyPatch) -> Iterator[dict[str, list[dict[str, str]]]]:
    """Hashes of the backbone's parameters and statistics at the start and the end of each fit's epochs."""
    seen: dict[str, list[dict[str, str]]] = {"start": [], "end": []}
    start, end = ImageClassifier.on_train_epoch_start, ImageClassifier.on_train_epoch_end
    monkeypatch.setattr(
        ImageClassifier,
        "on_train_epoch_start",
        lambda self: (start(self), seen["start"].append(digests(self)))[0],
    )
    monkeypatch.setattr(
        ImageClassifier,
        "on_train_epoch_end",
        lambda self: (end(self), seen["end"].append(digests(self)))[0],
    )
    return seen


def test_frozen_parameters_and_statistics_stay_to_the_bit(
    train: Train, tmp_path: Path, watched: dict[str, list[dict[str, str]]]
) -> None:
    cifar_like(tmp_path, 60, 20)
    ended = train(
        *OVERRIDES,
        "callbacks=unfreezing",
        UNFREEZING,
        *SCHEDULES["linear"],
        f"paths.data_dir={tmp_path}",
        "trainer.max_epochs=5",
    )
    assert ended.code == 0, ended.err
    names = list(watched["start"][0])
    assert sum("running_mean" in name for name in names) == 7
    for epoch, fits in enumerate(
        [(), ("stages.2.",), ("stages.2.",), ("stages.1.", "stages.2."), ("stages.1.", "stages.2.")]
    ):
        before, after = watched["start"][epoch], watched["end"][epoch]
        changed = {name for name in names if before[name] != after[name]}
        assert changed == {name for name in names if name.startswith(fits or "nothing")}, epoch


def stopped_and_resumed(
    train: Train,
    overrides: tuple[str, ...],
    epoch: int,
    folder: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Run until an error at the start of an epoch, then resume."""
    start = ImageClassifier.on_train_epoch_start

    def fail(self: ImageClassifier) -> None:
        if self.current_epoch == epoch:
            raise RuntimeError("power cut")
        start(self)

    with monkeypatch.context() as patch:
        patch.setattr(ImageClassifier, "on_train_epoch_start", fail)
        assert train(*overrides, folder=folder).code == 1
    assert RunFolder(folder).read_json("status.json")["state"] == "failed"
    resumed = train(*overrides, "ckpt_path=last", folder=folder)
    assert resumed.code == 0, resumed.err


# Where the schedule follows the step alone, the epochs around an unfreeze are enough.
@pytest.mark.parametrize(
    ("schedule", "epochs"),
    [("plateau", (2, 4)), ("onecycle", (2, 3)), ("exponential", (2, 3))],
)
def test_resumed_in_the_middle_of_the_schedule_equals_uninterrupted(
    schedule: str,
    epochs: tuple[int, ...],
    train: Train,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    cifar_like(tmp_path, 60, 20)
    overrides = (
        *OVERRIDES, "callbacks=unfreezing", UNFREEZING, f"paths.data_dir={tmp_path}",
        "trainer.max_epochs=5", *SCHEDULES[schedule],
        "data.augmentation.flip=true", "data.augmentation.rotation=10", "model.head.dropout=0.2",
    )  # fmt: skip
    whole = train(*overrides, folder=tmp_path / "whole").folder
    for epoch in epochs:
        parts = tmp_path / f"stopped_before_{epoch}"
        stopped_and_resumed(train, overrides, epoch, parts, monkeypatch)
        ours, theirs = (
            torch.load(folder / "checkpoints" / "last.ckpt", weights_only=True)
            for folder in (parts, whole)
        )
        for part in ("state_dict", "optimizer_states", "lr_schedulers"):
            assert identical(ours[part], theirs[part]), (epoch, part)
        rows = [
            [
                {k: v for k, v in row.items() if "second" not in k}
                for row in RunFolder(folder).read_history()
            ]
            for folder in (parts, whole)
        ]
        assert rows[0] == rows[1], epoch


@pytest.mark.parametrize("schedule", SCHEDULES)
def test_optimiser_state_and_learning_rate_right_after_an_unfreeze(
    schedule: str, train: Train, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A parameter's moments begin with its first gradient.

    Its learning rate is that of the schedule at this step.
    """
    cifar_like(tmp_path, 60, 20)
    seen: dict[int, tuple[dict[str, float], dict[str, float]]] = {}
    end = ImageClassifier.on_train_epoch_end

    def record(self: ImageClassifier) -> None:
        end(self)
        optimizer = self.trainer.optimizers[0]
        names = {id(p): name for name, p in self.network.named_parameters()}
        steps = {names[id(p)]: float(state["step"]) for p, state in optimizer.state.items()}
        seen[self.current_epoch] = (
            steps,
            {group["name"]: group["lr"] for group in optimizer.param_groups},
        )

    monkeypatch.setattr(ImageClassifier, "on_train_epoch_end", record)
    ended = train(
        *OVERRIDES, "callbacks=unfreezing", UNFREEZING, "callbacks.unfreezing.lr_factors={3: 0.1}",
        f"paths.data_dir={tmp_path}", "trainer.max_epochs=4", *SCHEDULES[schedule],
    )  # fmt: skip
    assert ended.code == 0, ended.err
    batches = 7  # 54 images in batches of 8
    for epoch, (steps, lrs) in seen.items():
        began = {"head": 0, "features.model.stages.2": 1, "features.model.stages.1": 3}
        expected = {
            prefix: (epoch + 1 - first) * batches
            for prefix, first in began.items()
            if epoch >= first
        }
        found = {
            prefix: {value for name, value in steps.items() if name.startswith(prefix)}
            for prefix in expected
        }
        assert found == {prefix: {float(count)} for prefix, count in expected.items()}, epoch
        assert not any(
            name.startswith(("features.model.stem", "features.model.stages.0")) for name in steps
        )
        assert lrs["features_epoch1"] == pytest.approx(lrs["head"])
        assert lrs["features_epoch3"] == pytest.approx(0.1 * lrs["head"])
    lr = [lrs["head"] for _, lrs in seen.values()]
    shown = [float(row["lr/head"]) for row in RunFolder(ended.folder).read_history()]
    if schedule == "exponential":
        # The scheduler steps after the last batch, so its rate is that of the next epoch. The
        # history shows the rate of the epoch itself.
        assert lr == pytest.approx([0.005, 0.0025, 0.00125, 0.000625])
        assert shown == pytest.approx([0.01, 0.005, 0.0025, 0.00125])
    elif schedule == "plateau":
        scores = [float(row["val/acc"]) for row in RunFolder(ended.folder).read_history()]
        expected, best = 0.01, -1.0
        for rate, score in zip(lr, scores, strict=True):
            expected, best = (expected, score) if score > best else (expected / 2, best)
            assert rate == pytest.approx(expected)
    else:
        assert lr[-1] < lr[0]


def test_plan_shows_every_stage(train: Train, tmp_path: Path) -> None:
    cifar_like(tmp_path, 60, 20)
    ended = train(
        *OVERRIDES, "callbacks=unfreezing", UNFREEZING, "callbacks.unfreezing.lr_factors={3: 0.1}",
        f"paths.data_dir={tmp_path}", "plan=true",
    )  # fmt: skip
    assert ended.code == 0, ended.err
    rows = [
        [cell.strip() for cell in line.split("│")[1:-1]]
        for line in ended.out.splitlines()
        if line.startswith("│")
    ]
    stages = [row for row in rows if len(row) == 4]
    head, last, middle = 90, 8 * 8 * 9 * 2 + 4 * 8, 8 * 8 * 9 * 2 + 4 * 8
    assert stages == [
        ["0", "none: only the head trains", f"{head:,}", "-"],
        ["1", "stages.2", f"{head + last:,}", "0.01"],
        ["3", "stages.1", f"{head + last + middle:,}", "0.001 to 0.01"],
    ]
    assert not ended.folder.exists()


def test_an_invalid_plan_ends_the_run_before_it_starts(train: Train, tmp_path: Path) -> None:
    cifar_like(tmp_path, 60, 20)
    ended = train(
        *OVERRIDES,
        "callbacks=unfreezing",
        "callbacks.unfreezing.start_layer=stage.2",
        f"paths.data_dir={tmp_path}",
    )
    assert ended.code == 1
    assert (
        ended.error
        == "error: no layer is called 'stage.2'; the nearest are stages.2, stages.1, stages.0"
    )
    overrides = (
        *OVERRIDES,
        "callbacks=unfreezing",
        UNFREEZING,
        f"paths.data_dir={tmp_path}",
        "trainer.max_epochs=3",
    )
    late = train(*overrides, folder=tmp_path / "late")
    assert late.error.startswith(
        "error: callbacks.unfreezing.schedule: epoch 3 is never reached, because trainer.max_epochs=3 ends before it"
    )
    ended = train(
        *OVERRIDES, "callbacks=unfreezing", f"paths.data_dir={tmp_path}", folder=tmp_path / "second"
    )
    assert "needs exactly one of start_layer, schedule and last_blocks" in ended.error


@pytest.mark.parametrize("schedule", ["onecycle", "plateau"])
def test_two_ddp_processes_have_the_same_weights_after_an_unfreeze(
    schedule: str, tmp_path: Path
) -> None:
    """With gloo on the CPU.

    If the model were not wrapped again, the ranks would silently diverge from epoch 1 on.
    """
    ended = run_ranks(2, tmp_path, schedule, program="tests.lightning_modules.ddp_unfreezing")
    assert [code for code, _, _ in ended] == [0, 0], ended
    ranks = [(tmp_path / f"rank{rank}.txt").read_text().splitlines() for rank in range(2)]
    assert len(ranks[0]) == 5
    assert ranks[0] == ranks[1]
    assert len(set(ranks[0])) == 5
    data = [(tmp_path / f"first{rank}.txt").read_text() for rank in range(2)]
    assert data[0] != data[1], "both ranks saw the same samples, so nothing was shown"


def test_last_blocks_are_those_of_the_backbone() -> None:
    bert = {
        "model_type": "bert",
        "hidden_size": 8,
        "num_hidden_layers": 3,
        "num_attention_heads": 2,
    }
    network = TextClassifier(bert, 2, pooling="mean").network
    assert LayerUnfreezing(last_blocks=2).plan(network) == LayerUnfreezing("encoder.layer.1").plan(
        network
    )
    with pytest.raises(FreezingError, match=r"last_blocks: received 4; BertModel has 3 blocks"):
        LayerUnfreezing(last_blocks=4).plan(network)
    with pytest.raises(FreezingError, match=r"last_blocks: received 1; Linear has 0 blocks"):
        LayerUnfreezing(last_blocks=1).plan(Classifier(Own(), nn.Linear(2, 2)))


class Own(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.model = nn.Linear(2, 2)
