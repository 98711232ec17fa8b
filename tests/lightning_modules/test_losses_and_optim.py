"""Losses equal their formulas, schedules their definitions, and optimizer steps those of torch."""

import itertools
import math
from collections.abc import Callable
from functools import partial
from typing import Any

import pytest
import torch
from torch import nn
from torch.optim.lr_scheduler import CosineAnnealingLR
from transformers import get_cosine_schedule_with_warmup

from lightning_modules.losses.classification import (
    CrossEntropy,
    class_probabilities,
    classification_loss,
    num_outputs,
)
from lightning_modules.losses.segmentation import UpsampledCrossEntropy
from lightning_modules.losses.upsampled_cross_entropy import upsampled_cross_entropy
from lightning_modules.optim.groups import parameter_groups
from lightning_modules.optim.optimizers import (
    OptimizerError,
    OptimizerFactory,
    clip_in_step,
    make_optimizer,
    supports_fused_clipping,
)
from lightning_modules.optim.schedules import (
    Schedule,
    constant,
    cosine,
    exponential,
    linear,
    lr_schedule,
    monitor_of,
    onecycle,
    plateau,
    steps_per_epoch_of,
)

# The optimizers of configs/optimizer.
OPTIMIZERS: dict[str, OptimizerFactory] = {
    "adamw": torch.optim.AdamW,
    "sgd": partial(torch.optim.SGD, momentum=0.9, nesterov=True),
}


def test_two_classes_are_one_logit() -> None:
    assert [num_outputs(k, CrossEntropy()) for k in (2, 3, 10)] == [1, 3, 10]
    assert [num_outputs(k, nn.CrossEntropyLoss()) for k in (2, 3, 10)] == [2, 3, 10]
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


@pytest.mark.parametrize(("schedule", "end"), [(linear, 0.0), (constant, 1.0), (cosine, 0.0)])
def test_schedule(schedule: Schedule, end: float) -> None:
    weight = nn.Parameter(torch.zeros(1))
    optimizer = torch.optim.SGD([{"params": [weight], "lr": 2.0}])
    scheduler = lr_schedule(
        optimizer, partial(schedule, warmup=0.1), total_steps=100, steps_per_epoch=10
    )
    rates = []
    for _ in range(100):
        rates.append(optimizer.param_groups[0]["lr"])
        optimizer.step()
        scheduler.step()
    assert rates[:10] == pytest.approx([2 * (i + 1) / 11 for i in range(10)])
    assert rates[10] == 2.0
    assert max(rates) == 2.0
    if schedule is not constant:
        assert rates[55] == pytest.approx(2 * 45 / 90)  # half of the way; so is half a cosine
        assert all(a > b for a, b in itertools.pairwise(rates[10:]))
        assert rates[99] > 0
    assert optimizer.param_groups[0]["lr"] == pytest.approx(2.0 * end)


def test_schedule_without_warmup_starts_at_its_peak() -> None:
    assert linear(0, 10, warmup=0.0) == 1.0
    assert linear(10, 10, warmup=0.0) == 0.0
    assert not math.isnan(linear(0, 0, warmup=0.0))


def test_schedules_warm_up_over_a_tenth_of_the_steps_by_default() -> None:
    for schedule in (linear, constant, cosine, onecycle):
        assert [schedule(step, 40) for step in range(40)] == [
            schedule(step, 40, warmup=0.1) for step in range(40)
        ]
        assert schedule(3, 40) < schedule(4, 40) == 1.0


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
    optimizer = make_optimizer(torch.optim.AdamW, groups)
    assert sum(len(g["params"]) for g in optimizer.param_groups) == len(names)


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_fused_steps_equal_torchs_loop(name: str) -> None:
    """GradScaler treats the optimizer as any other.

    Gradients can therefore be clipped between unscaling and the step.
    """
    torch.manual_seed(0)
    ours, theirs = nn.Linear(5, 3), nn.Linear(5, 3)
    theirs.load_state_dict(ours.state_dict())
    optimizer = make_optimizer(
        OPTIMIZERS[name], parameter_groups(nn.ModuleDict({"head": ours}), {"head": 0.01}, 0.1)
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
@pytest.mark.parametrize("name", OPTIMIZERS)
def test_clipping_within_the_step_equals_clipping_before_it(name: str, max_norm: float) -> None:
    """In float64, compared with torch's clipping and the same step.

    Gradients whose norm is below the limit stay bitwise equal.
    """
    torch.manual_seed(0)
    ours, theirs, unclipped = (nn.Linear(5, 3).double() for _ in range(3))
    steps = []
    for network in (ours, theirs, unclipped):
        network.load_state_dict(ours.state_dict())
        groups = parameter_groups(nn.ModuleDict({"head": network}), {"head": 0.01}, 0.1)
        steps.append(make_optimizer(OPTIMIZERS[name], groups))
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
        torch.optim.AdamW,
        parameter_groups(nn.ModuleDict({"head": network}), {"head": 0.01}, 0.1),
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
        optimizer, scaler = make_optimizer(torch.optim.SGD, groups), torch.amp.GradScaler("cpu")
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


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_only_fused_optimizers_clip_in_the_step(name: str) -> None:
    def groups() -> list[dict[str, Any]]:
        return parameter_groups(nn.ModuleDict({"head": nn.Linear(2, 2)}), {"head": 0.01}, 0.1)

    assert supports_fused_clipping(make_optimizer(OPTIMIZERS[name], groups()))
    # Not fused: one pass over the weights per operation.
    assert not supports_fused_clipping(torch.optim.SGD(groups()))
    assert not supports_fused_clipping(
        make_optimizer(partial(OPTIMIZERS[name], fused=False), groups())
    )
    assert not supports_fused_clipping(make_optimizer(torch.optim.NAdam, groups()))  # never fused


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
        make_optimizer(torch.optim.AdamW, groups)
    )  # a device that is neither a CPU nor NVIDIA's


@pytest.mark.parametrize("num_classes", [2, 4])
def test_label_smoothing_equals_the_loss_of_smoothed_labels(num_classes: int) -> None:
    torch.manual_seed(0)
    loss = CrossEntropy(label_smoothing=0.2)
    logits, labels = torch.randn(6, num_outputs(num_classes, loss)), torch.arange(6) % num_classes
    smooth = nn.functional.one_hot(labels, num_classes) * 0.8 + 0.2 / num_classes
    expected = -(smooth * class_probabilities(logits).log()).sum(dim=1).mean()
    torch.testing.assert_close(classification_loss(logits, labels, 0.2), expected)
    assert torch.equal(loss(logits, labels), classification_loss(logits, labels, 0.2))
    assert torch.equal(loss.eval()(logits, labels), classification_loss(logits, labels))


def test_labels_of_masks_are_smoothed_while_training_only() -> None:
    torch.manual_seed(0)
    logits, labels = torch.randn(2, 3, 4, 4), torch.randint(0, 3, (2, 8, 8), dtype=torch.uint8)
    loss = UpsampledCrossEntropy(label_smoothing=0.2)
    for smoothing in (0.2, 0.0):
        expected, predictions = upsampled_cross_entropy(logits, labels, smoothing)
        assert torch.equal(loss(logits, labels), expected)
        assert torch.equal(loss.with_predictions(logits, labels)[1], predictions)
        loss.eval()


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
    ours = rates(partial(onecycle, warmup=0.25), [0.4, 0.02], total=80, per_epoch=10)
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
        partial(exponential, decay=0.9, min_lr=5e-5), [1e-4, 1e-2, 1e-5], total=120, per_epoch=4
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
    schedule = partial(plateau, decay=0.1, min_lr=0.05, patience=1, mode="max")
    scheduler = lr_schedule(optimizer, schedule, total_steps=1, steps_per_epoch=1)
    seen = []
    for accuracy in (0.5, 0.6, 0.6, 0.6, 0.7, 0.1, 0.1):
        scheduler.step(accuracy)  # type: ignore[arg-type]
        seen.append(optimizer.param_groups[0]["lr"])
    assert seen == pytest.approx([1, 1, 1, 0.1, 0.1, 0.1, 0.05])


@pytest.mark.parametrize("final", [0.0, 0.2])
def test_cosine_equals_torchs_and_transformers_with_a_warmup(final: float) -> None:
    """transformers starts its warm-up at 0 and ends at 0, and torch has no warm-up."""
    total, warmup_steps = 50, 10
    (ours,) = rates(partial(cosine, warmup=0.2, final=final), [0.3], total, per_epoch=5)
    assert ours[:warmup_steps] == pytest.approx([0.3 * (i + 1) / 11 for i in range(warmup_steps)])
    optimizer = torch.optim.SGD([nn.Parameter(torch.zeros(1))], lr=0.3)
    reference = CosineAnnealingLR(optimizer, T_max=total - warmup_steps, eta_min=0.3 * final)
    theirs = []
    for _ in range(total - warmup_steps):
        theirs.append(optimizer.param_groups[0]["lr"])
        optimizer.step()
        reference.step()
    assert ours[warmup_steps:] == pytest.approx(theirs)
    assert cosine(total, total, warmup=0.2, final=final) == pytest.approx(final)
    assert cosine(total + 1, total, warmup=0.2, final=final) == pytest.approx(final)
    if not final:
        optimizer = torch.optim.SGD([nn.Parameter(torch.zeros(1))], lr=0.3)
        factor: Callable[[int], float] = get_cosine_schedule_with_warmup(
            optimizer, warmup_steps, total
        ).lr_lambdas[0]
        assert ours[warmup_steps:] == pytest.approx(
            [0.3 * factor(step) for step in range(warmup_steps, total)]
        )


@pytest.mark.parametrize("schedule", [linear, cosine, onecycle, constant])
def test_a_resumed_schedule_follows_the_new_total(schedule: Schedule) -> None:
    """A checkpoint has the step, but not the total of the run that wrote it."""

    def started(total: int) -> tuple[torch.optim.Optimizer, Any]:
        optimizer = torch.optim.SGD([nn.Parameter(torch.zeros(1))], lr=1.0)
        return optimizer, lr_schedule(optimizer, schedule, total_steps=total, steps_per_epoch=5)

    optimizer, scheduler = started(20)
    for _ in range(10):
        optimizer.step()
        scheduler.step()
    state = {"optimizer": optimizer.state_dict(), "scheduler": scheduler.state_dict()}
    optimizer, scheduler = started(40)
    optimizer.load_state_dict(state["optimizer"])
    scheduler.load_state_dict(state["scheduler"])
    found = []
    for _ in range(11, 40):
        optimizer.step()
        scheduler.step()
        found.append(optimizer.param_groups[0]["lr"])
    assert found == pytest.approx([schedule(step, 40) for step in range(11, 40)])


def test_the_monitor_of_a_plateau_is_an_option() -> None:
    assert monitor_of(plateau) == "val/acc"
    assert monitor_of(partial(plateau, monitor="val/loss", mode="min")) == "val/loss"


def test_a_function_of_step_and_total_is_a_schedule() -> None:
    def halved(step: int, total: int, at: float = 0.5) -> float:
        return 1.0 if step < at * total else 0.5

    assert rates(halved, [2.0], total=4, per_epoch=2) == [[2.0, 2.0, 1.0, 1.0]]
    assert rates(partial(halved, at=0.25), [2.0], total=4, per_epoch=2) == [[2.0, 1.0, 1.0, 1.0]]


def test_steps_of_an_epoch() -> None:
    assert [
        steps_per_epoch_of(batches, accumulate)
        for batches, accumulate in ((7, 1), (7, 2), (8, 4), (1, 9))
    ] == [7, 4, 2, 1]


def test_sgd_has_nesterovs_momentum() -> None:
    def groups() -> list[dict[str, Any]]:
        return parameter_groups(nn.ModuleDict({"head": nn.Linear(2, 1)}), {"head": 0.1}, 5e-4)

    optimizer = make_optimizer(OPTIMIZERS["sgd"], groups())
    assert all(group["nesterov"] and group["momentum"] == 0.9 for group in optimizer.param_groups)
    plain = make_optimizer(partial(torch.optim.SGD, momentum=0.0, nesterov=False), groups())
    assert not any(group["nesterov"] for group in plain.param_groups)


@pytest.mark.parametrize(
    ("factory", "weight_decay", "message"),
    [
        (torch.optim.LBFGS, 0.0, "LBFGS cannot be built: LBFGS doesn't support per-parameter"),
        (torch.optim.LBFGS, 0.1, "LBFGS has no weight decay; set model.weight_decay=0"),
        (torch.optim.Rprop, 0.1, "Rprop has no weight decay; set model.weight_decay=0"),
        (
            partial(torch.optim.SGD, momentum=0.0, nesterov=True),
            0.1,
            "SGD cannot be built: Nesterov momentum requires",
        ),
        (
            partial(torch.optim.AdamW, betas=(2.0, 0.9)),
            0.1,
            "AdamW cannot be built: Invalid beta",
        ),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_an_optimizer_that_cannot_be_built_is_reported(
    factory: OptimizerFactory, weight_decay: float, message: str
) -> None:
    groups = parameter_groups(nn.ModuleDict({"head": nn.Linear(2, 1)}), {"head": 0.1}, weight_decay)
    with pytest.raises(OptimizerError) as caught:
        make_optimizer(factory, groups)
    assert str(caught.value).startswith(f"model.optimizer: {message}")
    assert "\n" not in str(caught.value)


def test_an_optimizer_without_weight_decay_trains_undecayed_groups() -> None:
    groups = parameter_groups(nn.ModuleDict({"head": nn.Linear(2, 1)}), {"head": 0.1}, 0.0)
    optimizer = make_optimizer(torch.optim.Rprop, groups)
    assert [group["lr"] for group in optimizer.param_groups] == [0.1, 0.1]


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


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_scaled_gradients_are_unscaled_and_clipped_before_the_step(name: str) -> None:
    moved = []
    for scale in (None, 1024.0):
        torch.manual_seed(0)
        network = nn.ModuleDict({"head": nn.Linear(3, 1)})
        optimizer = make_optimizer(OPTIMIZERS[name], parameter_groups(network, {"head": 0.1}, 0.01))
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
