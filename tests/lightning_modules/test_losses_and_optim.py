"""Loss against its formula, schedule against its definition, groups against the network."""

import itertools
import math

import pytest
import torch
from torch import nn

from lightning_modules.losses import class_probabilities, classification_loss, num_outputs
from lightning_modules.optim import adamw, lr_factor, lr_schedule, parameter_groups


def test_two_classes_are_one_logit() -> None:
    assert [num_outputs(k) for k in (2, 3, 10)] == [1, 3, 10]
    logits, labels = torch.tensor([[2.0], [-1.0], [0.0]]), torch.tensor([1, 1, 0])
    p = 1 / (1 + torch.exp(-logits[:, 0]))
    expected = -(labels * p.log() + (1 - labels) * (1 - p).log()).mean()
    torch.testing.assert_close(classification_loss(logits, labels), expected)
    torch.testing.assert_close(class_probabilities(logits)[:, 1], p)
    # The same as cross-entropy over (0, logit).
    both = torch.cat([torch.zeros_like(logits), logits], dim=1)
    torch.testing.assert_close(classification_loss(logits, labels), nn.functional.cross_entropy(both, labels))


def test_more_classes_are_cross_entropy() -> None:
    logits, labels = torch.randn(5, 4), torch.tensor([0, 3, 1, 1, 2])
    expected = -(logits.exp() / logits.exp().sum(1, keepdim=True)).log()[range(5), labels].mean()
    torch.testing.assert_close(classification_loss(logits, labels), expected)


def test_large_logits_stay_finite_and_half_precision_is_widened() -> None:
    logits = torch.tensor([[200.0], [-200.0]], dtype=torch.bfloat16)
    loss = classification_loss(logits, torch.tensor([0, 1]))
    assert loss.dtype == torch.float32
    assert float(loss) == 200.0
    assert class_probabilities(logits).tolist() == [[0.0, 1.0], [1.0, 0.0]]


@pytest.mark.parametrize(("schedule", "end"), [("linear", 0.0), ("constant", 1.0)])
def test_schedule(schedule: str, end: float) -> None:
    weight = nn.Parameter(torch.zeros(1))
    optimizer = torch.optim.SGD([{"params": [weight], "lr": 2.0}])
    scheduler = lr_schedule(optimizer, schedule=schedule, warmup=0.1, total_steps=100)  # type: ignore[arg-type]
    rates = []
    for _ in range(100):
        rates.append(optimizer.param_groups[0]["lr"])
        optimizer.step()
        scheduler.step()
    assert rates[:10] == pytest.approx([2 * (i + 1) / 11 for i in range(10)])
    assert rates[10] == 2.0
    assert max(rates) == 2.0
    if schedule == "linear":
        assert rates[55] == pytest.approx(2 * 45 / 90)
        assert all(a > b for a, b in itertools.pairwise(rates[10:]))
        assert rates[99] > 0
    assert optimizer.param_groups[0]["lr"] == pytest.approx(2.0 * end)


def test_schedule_without_warmup_starts_at_its_peak() -> None:
    assert lr_factor(0, schedule="linear", warmup_steps=0, total_steps=10) == 1.0
    assert lr_factor(10, schedule="linear", warmup_steps=0, total_steps=10) == 0.0
    assert not math.isnan(lr_factor(0, schedule="linear", warmup_steps=0, total_steps=0))


def test_groups_hold_every_parameter_once_and_spare_norms_and_biases() -> None:
    network = nn.ModuleDict(
        {
            "features": nn.Sequential(nn.Embedding(5, 4), nn.Linear(4, 4), nn.LayerNorm(4)),
            "head": nn.ModuleDict({"gru": nn.GRU(4, 3), "output": nn.Linear(3, 1)}),
        }
    )
    network["features"].requires_grad_(False)
    groups = parameter_groups(network, {"features": 1e-5, "head": 1e-3}, weight_decay=0.01)
    assert [g["name"] for g in groups] == ["features", "features_no_decay", "head", "head_no_decay"]
    names = {id(p): name for name, p in network.named_parameters()}
    grouped = {g["name"]: {names[id(p)] for p in g["params"]} for g in groups}
    assert sorted(name for group in grouped.values() for name in group) == sorted(names.values())
    assert grouped["features_no_decay"] == {"features.1.bias", "features.2.weight", "features.2.bias"}
    assert all(g["weight_decay"] == (0.0 if g["name"].endswith("no_decay") else 0.01) for g in groups)
    assert [g["lr"] for g in groups] == [1e-5, 1e-5, 1e-3, 1e-3]
    optimizer = adamw(groups, fused=False)
    assert sum(len(g["params"]) for g in optimizer.param_groups) == len(names)
