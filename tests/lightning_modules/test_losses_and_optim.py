"""Losses equal their formulas, schedules their definitions, and optimizer steps those of torch."""

import itertools
import math
from typing import Literal

import pytest
import torch
from torch import nn

from lightning_modules.losses.classification import (
    class_probabilities,
    classification_loss,
    num_outputs,
)
from lightning_modules.optim.groups import parameter_groups
from lightning_modules.optim.optimizers import (
    OptimizerName,
    clip_in_step,
    make_optimizer,
    supports_fused_clipping,
)
from lightning_modules.optim.schedules import Schedule, lr_factor, lr_schedule, steps_per_epoch_of


def test_two_classes_are_one_logit() -> None:
    assert [num_outputs(k) for k in (2, 3, 10)] == [1, 3, 10]
    logits, labels = torch.tensor([[2.0], [-1.0], [0.0]]), torch.tensor([1, 1, 0])
    p = 1 / (1 + torch.exp(-logits[:, 0]))
    expected = -(labels * p.log() + (1 - labels) * (1 - p).log()).mean()
    torch.testing.assert_close(classification_loss(logits, labels), expected)
    torch.testing.assert_close(class_probabilities(logits)[:, 1], p)
    # The same as cross-entropy over (0, logit).
    both = torch.cat([torch.zeros_like(logits), logits], dim=1)
    torch.testing.assert_close(
        classification_loss(logits, labels), nn.functional.cross_entropy(both, labels)
    )


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
    scheduler = lr_schedule(optimizer, Schedule(schedule, 0.1), total_steps=100, steps_per_epoch=10)  # type: ignore[arg-type]
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
    assert lr_factor(0, name="linear", warmup_steps=0, total_steps=10) == 1.0
    assert lr_factor(10, name="linear", warmup_steps=0, total_steps=10) == 0.0
    assert not math.isnan(lr_factor(0, name="linear", warmup_steps=0, total_steps=0))


def test_groups_have_every_parameter_once_and_no_decay_for_norms_and_biases() -> None:
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
    assert grouped["features_no_decay"] == {
        "features.1.bias",
        "features.2.weight",
        "features.2.bias",
    }
    assert all(
        g["weight_decay"] == (0.0 if g["name"].endswith("no_decay") else 0.01) for g in groups
    )
    assert [g["lr"] for g in groups] == [1e-5, 1e-5, 1e-3, 1e-3]
    optimizer = make_optimizer("adamw", groups, momentum=0.9)
    assert sum(len(g["params"]) for g in optimizer.param_groups) == len(names)


@pytest.mark.parametrize("name", ["adamw", "sgd"])
def test_fused_steps_equal_torchs_loop(name: Literal["adamw", "sgd"]) -> None:
    """GradScaler treats the optimizer as any other.

    Gradients can therefore be clipped between unscaling and the step.
    """
    torch.manual_seed(0)
    ours, theirs = nn.Linear(5, 3), nn.Linear(5, 3)
    theirs.load_state_dict(ours.state_dict())
    optimizer = make_optimizer(
        name, parameter_groups(nn.ModuleDict({"head": ours}), {"head": 0.01}, 0.1), momentum=0.9
    )
    groups = parameter_groups(nn.ModuleDict({"head": theirs}), {"head": 0.01}, 0.1)
    loop: torch.optim.Optimizer = torch.optim.SGD(
        groups, momentum=0.9, nesterov=True, foreach=False
    )
    if name == "adamw":
        loop = torch.optim.AdamW(groups, foreach=False)
    for _ in range(5):
        pixels = torch.randn(4, 5)
        for network, steps in ((ours, optimizer), (theirs, loop)):
            steps.zero_grad()
            network(pixels).square().sum().backward()
            steps.step()
    torch.testing.assert_close(ours.weight, theirs.weight)
    torch.testing.assert_close(ours.bias, theirs.bias)
    assert all(group["fused"] for group in optimizer.param_groups)
    assert not getattr(optimizer, "_step_supports_amp_scaling", False)


@pytest.mark.parametrize("max_norm", [0.05, 1e6])
@pytest.mark.parametrize("name", ["adamw", "sgd"])
def test_clipping_within_the_step_equals_clipping_before_it(
    name: Literal["adamw", "sgd"], max_norm: float
) -> None:
    """In float64, compared with torch's clipping and the same step.

    Gradients whose norm is below the limit stay bitwise equal.
    """
    torch.manual_seed(0)
    ours, theirs, unclipped = (nn.Linear(5, 3).double() for _ in range(3))
    steps = []
    for network in (ours, theirs, unclipped):
        network.load_state_dict(ours.state_dict())
        groups = parameter_groups(nn.ModuleDict({"head": network}), {"head": 0.01}, 0.1)
        steps.append(make_optimizer(name, groups, momentum=0.9))
    for i in range(5):
        pixels = torch.randn(4, 5).double() * (i + 1)
        for network, optimizer in zip((ours, theirs, unclipped), steps, strict=True):
            optimizer.zero_grad()
            network(pixels).square().sum().backward()
        clip_in_step(steps[0], max_norm)
        nn.utils.clip_grad_norm_(theirs.parameters(), max_norm)
        for optimizer in steps:
            optimizer.step()
    torch.testing.assert_close(ours.weight, theirs.weight, rtol=1e-6, atol=1e-8)
    torch.testing.assert_close(ours.bias, theirs.bias, rtol=1e-6, atol=1e-8)
    assert torch.equal(ours.weight, unclipped.weight) == (max_norm > 1)


def test_a_nan_norm_reaches_all_weights_as_in_torchs_clipping() -> None:
    network = nn.Linear(2, 2)
    optimizer = make_optimizer(
        "adamw",
        parameter_groups(nn.ModuleDict({"head": network}), {"head": 0.01}, 0.1),
        momentum=0.9,
    )
    network.weight.grad, network.bias.grad = torch.full((2, 2), math.nan), torch.ones(2)
    clip_in_step(optimizer, 1.0)
    optimizer.step()
    assert network.bias.isnan().all()


def test_a_scaled_step_is_clipped_as_in_torch() -> None:
    """GradScaler skips one of the steps, because its gradients are not finite."""
    torch.manual_seed(0)
    ours, theirs = nn.Linear(5, 3), nn.Linear(5, 3)
    theirs.load_state_dict(ours.state_dict())
    for network in (ours, theirs):
        groups = parameter_groups(nn.ModuleDict({"head": network}), {"head": 0.1}, 0.0)
        optimizer, scaler = make_optimizer("sgd", groups, momentum=0.0), torch.amp.GradScaler("cpu")
        for factor in (1.0, math.inf, 2.0):
            optimizer.zero_grad()
            scaler.scale(network(torch.full((4, 5), factor)).square().sum()).backward()
            scaler.unscale_(optimizer)
            if network is ours:
                clip_in_step(optimizer, 0.05)
            else:
                nn.utils.clip_grad_norm_(network.parameters(), 0.05)
            scaler.step(optimizer)
            scaler.update()
    assert ours.weight.isfinite().all()
    torch.testing.assert_close(ours.weight, theirs.weight)


@pytest.mark.parametrize("name", ["adamw", "sgd"])
def test_only_fused_optimizers_clip_in_the_step(name: OptimizerName) -> None:
    groups = parameter_groups(nn.ModuleDict({"head": nn.Linear(2, 2)}), {"head": 0.01}, 0.1)
    assert supports_fused_clipping(make_optimizer(name, groups, momentum=0.9))
    assert not supports_fused_clipping(
        torch.optim.SGD(groups)
    )  # not fused: one pass over the weights per operation


def test_devices_other_than_cpu_and_cuda_do_not_clip_in_the_step() -> None:
    groups = [
        {
            "name": "head",
            "params": [nn.Parameter(torch.zeros(2, device="meta"))],
            "lr": 0.1,
            "weight_decay": 0.0,
        }
    ]
    assert not supports_fused_clipping(
        make_optimizer("adamw", groups, momentum=0.9)
    )  # a device that is neither a CPU nor NVIDIA's


@pytest.mark.parametrize("num_classes", [2, 4])
def test_label_smoothing_equals_the_loss_of_smoothed_labels(num_classes: int) -> None:
    torch.manual_seed(0)
    logits, labels = torch.randn(6, num_outputs(num_classes)), torch.arange(6) % num_classes
    smooth = nn.functional.one_hot(labels, num_classes) * 0.8 + 0.2 / num_classes
    expected = -(smooth * class_probabilities(logits).log()).sum(dim=1).mean()
    torch.testing.assert_close(classification_loss(logits, labels, 0.2), expected)


def rates(schedule: Schedule, peaks: list[float], total: int, per_epoch: int) -> list[list[float]]:
    """Learning rates of each group at each step."""
    optimizer = torch.optim.SGD(
        [{"params": [nn.Parameter(torch.zeros(1))], "lr": peak} for peak in peaks]
    )
    scheduler = lr_schedule(optimizer, schedule, total_steps=total, steps_per_epoch=per_epoch)
    seen = []
    for _ in range(total):
        seen.append([group["lr"] for group in optimizer.param_groups])
        optimizer.step()
        scheduler.step()
    return [list(column) for column in zip(*seen, strict=True)]


def test_onecycle_equals_torchs() -> None:
    """OneCycleLR reaches its end at the last step; ours stays one step above it."""
    ours = rates(Schedule("onecycle", warmup=0.25), [0.4, 0.02], total=80, per_epoch=10)
    for peak, curve in zip([0.4, 0.02], ours, strict=True):
        optimizer = torch.optim.SGD([nn.Parameter(torch.zeros(1))], lr=peak)
        reference = torch.optim.lr_scheduler.OneCycleLR(
            optimizer, peak, total_steps=81, pct_start=21 / 81, anneal_strategy="linear", cycle_momentum=False, div_factor=10,
            final_div_factor=100,
        )  # fmt: skip
        theirs = []
        for _ in range(80):
            theirs.append(optimizer.param_groups[0]["lr"])
            optimizer.step()
            reference.step()
        assert curve == pytest.approx(theirs)
        assert min(curve) > 0
        assert max(curve) == pytest.approx(peak)


def test_exponential_equals_torchs_per_epoch_with_a_floor_for_each_group() -> None:
    ours = rates(
        Schedule("exponential", decay=0.9, min_lr=5e-5), [1e-4, 1e-2, 1e-5], total=120, per_epoch=4
    )
    for peak, curve in zip([1e-4, 1e-2, 1e-5], ours, strict=True):
        optimizer = torch.optim.SGD([nn.Parameter(torch.zeros(1))], lr=peak)
        reference = torch.optim.lr_scheduler.ExponentialLR(optimizer, 0.9)
        for epoch in range(30):
            expected = max(optimizer.param_groups[0]["lr"], min(5e-5, peak))
            assert curve[4 * epoch : 4 * epoch + 4] == pytest.approx([expected] * 4)
            optimizer.step()
            reference.step()


def test_plateau_waits_and_does_not_fall_below_its_floor() -> None:
    optimizer = torch.optim.SGD([nn.Parameter(torch.zeros(1))], lr=1.0)
    schedule = Schedule("plateau", decay=0.1, min_lr=0.05, patience=1, mode="max")
    scheduler = lr_schedule(optimizer, schedule, total_steps=1, steps_per_epoch=1)
    seen = []
    for accuracy in (0.5, 0.6, 0.6, 0.6, 0.7, 0.1, 0.1):
        scheduler.step(accuracy)  # type: ignore[arg-type]
        seen.append(optimizer.param_groups[0]["lr"])
    assert seen == pytest.approx([1, 1, 1, 0.1, 0.1, 0.1, 0.05])


def test_steps_of_an_epoch() -> None:
    assert [
        steps_per_epoch_of(batches, accumulate)
        for batches, accumulate in ((7, 1), (7, 2), (8, 4), (1, 9))
    ] == [7, 4, 2, 1]


def test_sgd_has_nesterovs_momentum() -> None:
    groups = parameter_groups(nn.ModuleDict({"head": nn.Linear(2, 1)}), {"head": 0.1}, 5e-4)
    optimizer = make_optimizer("sgd", groups, momentum=0.9)
    assert all(group["nesterov"] and group["momentum"] == 0.9 for group in optimizer.param_groups)
    make_optimizer("sgd", groups, momentum=0.0)


def test_the_plan_splits_the_groups() -> None:
    network = nn.ModuleDict(
        {"features": nn.Sequential(nn.Linear(2, 2), nn.Linear(2, 2)), "head": nn.Linear(2, 1)}
    )

    def group_of(name: str) -> tuple[str, float]:
        return ("_layer1", 0.5) if name.startswith("features.1.") else ("", 1.0)

    groups = parameter_groups(network, {"features": 1e-2, "head": 1e-1}, 0.01, group_of)
    assert [(g["name"], g["lr"]) for g in groups] == [
        ("features", 1e-2), ("features_no_decay", 1e-2), ("features_layer1", 5e-3), ("features_layer1_no_decay", 5e-3),
        ("head", 1e-1), ("head_no_decay", 1e-1),
    ]  # fmt: skip
    assert sum(len(g["params"]) for g in groups) == 6


@pytest.mark.parametrize("name", ["adamw", "sgd"])
def test_scaled_gradients_are_unscaled_and_clipped_before_the_step(name: OptimizerName) -> None:
    moved = []
    for scale in (None, 1024.0):
        torch.manual_seed(0)
        network = nn.ModuleDict({"head": nn.Linear(3, 1)})
        optimizer = make_optimizer(
            name, parameter_groups(network, {"head": 0.1}, 0.01), momentum=0.9
        )
        scaler = torch.amp.GradScaler("cpu", init_scale=scale or 1.0, enabled=scale is not None)
        for _ in range(3):
            loss = (network["head"](torch.ones(2, 3)) - 30).square().mean()
            optimizer.zero_grad()
            scaler.scale(loss).backward()
            scaler.unscale_(optimizer)
            assert torch.nn.utils.clip_grad_norm_(network.parameters(), 0.5) > 0.5
            scaler.step(optimizer)
            scaler.update()
        moved.append(
            torch.cat([parameter.detach().flatten() for parameter in network.parameters()])
        )
    torch.testing.assert_close(moved[0], moved[1])
