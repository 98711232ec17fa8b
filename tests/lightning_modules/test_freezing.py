"""Freezing depends on plan and epoch alone, and frozen layers do not change."""

import hashlib
from pathlib import Path

import pytest
import torch
from torch import nn

from lightning_modules.networks.freezing.plan import (
    FreezingError,
    FreezingPlan,
    apply_plan,
    keep_frozen_in_eval,
)
from lightning_modules.networks.heads.classification import BiGRUHead


def network() -> nn.Sequential:
    def block() -> nn.Sequential:
        return nn.Sequential(nn.Linear(4, 4), nn.BatchNorm1d(4), nn.Dropout(0.5))

    return nn.Sequential(block(), block(), nn.Linear(4, 2))


def test_trainable_parameters_depend_on_the_epoch_alone() -> None:
    plan = FreezingPlan({"0": None, "1": 2, "1.0.weight": 1})
    assert [
        plan.first_epoch(name) for name in ("0.0.weight", "1.0.bias", "1.0.weight", "2.weight")
    ] == [None, 2, 1, 0]
    net = network()
    for epoch in (3, 0, 2, 1):  # in any order
        apply_plan(net, plan, epoch)
        for name, parameter in net.named_parameters():
            assert parameter.requires_grad == plan.trains(name, epoch), (name, epoch)


def test_frozen_modules_stay_in_eval_and_others_keep_their_mode() -> None:
    net = network().train()
    apply_plan(net, FreezingPlan({"0": None, "1": 1}), epoch=0)
    assert [net[0].training, net[0][2].training, net[1].training, net[2].training] == [
        False,
        False,
        False,
        True,
    ]
    net.train()
    keep_frozen_in_eval(net)
    assert [net[0].training, net[1].training, net[2].training] == [False, False, True]
    apply_plan(net, FreezingPlan({"0": None, "1": 1}), epoch=1)
    net.train()
    keep_frozen_in_eval(net)
    assert [net[0].training, net[1][2].training, net[2].training] == [False, True, True]


def test_training_leaves_frozen_parameters_and_statistics_alone() -> None:
    net = network()
    apply_plan(net, FreezingPlan({"0": None}), epoch=0)
    before = {k: v.clone() for k, v in net.state_dict().items()}
    optimizer = torch.optim.AdamW(net.parameters(), lr=0.1, weight_decay=0.1)
    for _ in range(3):
        net.train()
        keep_frozen_in_eval(net)
        net(torch.randn(8, 4)).sum().backward()
        optimizer.step()
        optimizer.zero_grad()
    for key, value in net.state_dict().items():
        assert torch.equal(value, before[key]) == key.startswith("0."), key


def test_unknown_name_lists_the_nearest() -> None:
    with pytest.raises(FreezingError, match=r"no layer is called '1.O'; the nearest are .*1.0"):
        FreezingPlan({"1.O": None}).check(network())
    FreezingPlan({"1.0": None, "2.weight": 3}).check(network())


def digest(task: nn.Module, *, frozen: bool) -> str:
    """Hash of parameters and buffers of the features if `frozen`, else of the other layers."""
    sha = hashlib.sha256()
    for name, tensor in [*task.named_parameters(), *task.named_buffers()]:
        if name.startswith("network.") and name.startswith("network.features") == frozen:
            sha.update(name.encode() + tensor.detach().numpy().tobytes())
    return sha.hexdigest()


@pytest.mark.parametrize("head", ["linear", "bigru"])
@pytest.mark.parametrize("freeze", [True, False])
def test_frozen_backbone_is_bit_identical_after_a_fit(
    head: str,
    freeze: bool,
    tiny_backbone: Path,
    covid_dir: Path,
    train: object,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Through the real entry point, with validation.

    The train mode of all modules is checked in every training step.
    """
    from lightning_modules.text_classifier import TextClassifier

    digests, modes = [], []
    start, step = TextClassifier.on_fit_start, TextClassifier.training_step

    def on_fit_start(self: TextClassifier) -> None:
        start(self)
        digests.append((digest(self, frozen=True), digest(self, frozen=False)))

    def training_step(self: TextClassifier, batch: object, batch_idx: int) -> torch.Tensor:
        modes.append({m.training for m in self.network.features.modules()})
        assert self.network.head.training
        return step(self, batch, batch_idx)

    def on_fit_end(self: TextClassifier) -> None:
        digests.append((digest(self, frozen=True), digest(self, frozen=False)))

    monkeypatch.setattr(TextClassifier, "on_fit_start", on_fit_start)
    monkeypatch.setattr(TextClassifier, "training_step", training_step)
    monkeypatch.setattr(TextClassifier, "on_fit_end", on_fit_end)
    ended = train(  # type: ignore[operator]
        "experiment=bert_finetune", f"model.backbone={tiny_backbone}", f"paths.data_dir={covid_dir}", "trainer.max_epochs=2",
        f"head={head}", f"model.freeze_backbone={freeze}",
        *(["model.head.hidden=8"] if head == "bigru" else []),
    )  # fmt: skip
    assert ended.code == 0, ended.err
    (features_before, head_before), (features_after, head_after) = digests
    assert (features_before == features_after) == freeze
    assert head_before != head_after
    assert len(modes) == 4
    assert all(mode == {not freeze} for mode in modes)


def test_gradual_plan_unfreezes_during_a_fit(tiny_backbone: Path) -> None:
    from lightning_modules.text_classifier import TextClassifier

    task = TextClassifier(str(tiny_backbone), 2, head=BiGRUHead)
    task.set_freezing_plan(FreezingPlan({"features": None, "features.model.encoder.layer.0": 1}))
    layer, embeddings = (
        task.network.features.model.encoder.layer[0],
        task.network.features.model.embeddings,
    )
    assert not layer.training
    apply_plan(task.network, task.freezing, 1)
    task.train()
    assert layer.training
    assert not embeddings.training
    assert all(p.requires_grad for p in layer.parameters())
    assert not any(p.requires_grad for p in embeddings.parameters())
