"""The loss equals the plain formula in value, gradient and predictions, with less memory."""

import math

import pytest
import torch
from torch import Tensor
from torch.nn import functional

from benchmarks import segmentation_loss
from benchmarks.segmentation_loss import random_labels
from lightning_modules.losses import upsampled_cross_entropy as module
from lightning_modules.losses.upsampled_cross_entropy import upsampled_cross_entropy
from tests.allocations import peak_allocated

# Sizes of logits and labels: integer and other factors, one row, downsampling, equal sizes.
SIZES = [
    ((8, 8), (32, 32)),
    ((7, 5), (33, 17)),
    ((16, 11), (51, 44)),
    ((1, 6), (9, 24)),
    ((12, 12), (5, 7)),
    ((6, 9), (6, 9)),
]


def plain(logits: Tensor, labels: Tensor, smoothing: float = 0.0) -> Tensor:
    upsampled = functional.interpolate(
        logits, size=labels.shape[-2:], mode="bilinear", align_corners=False
    )
    return functional.cross_entropy(
        upsampled, labels.long(), ignore_index=255, label_smoothing=smoothing
    )


def case(
    small: tuple[int, int], large: tuple[int, int], classes: int = 7, batch: int = 3
) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(1)
    logits = 3 * torch.randn(batch, classes, *small, generator=generator)
    labels = torch.randint(0, classes, (batch, *large), generator=generator, dtype=torch.uint8)
    return logits, labels.masked_fill(torch.rand(labels.shape, generator=generator) < 0.2, 255)


def gradient(loss: Tensor, logits: Tensor) -> Tensor:
    return torch.autograd.grad(loss, logits)[0]


@pytest.fixture(params=[2**22, 300], ids=["one strip", "many of a few rows"])
def strips(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Sets the number of strips."""
    monkeypatch.setattr(module, "_CPU_STRIP", request.param)


@pytest.mark.parametrize("smoothing", [0.0, 0.1])
@pytest.mark.parametrize(("small", "large"), SIZES)
def test_value_and_gradient_equal_the_plain_formula(
    small: tuple[int, int], large: tuple[int, int], smoothing: float, strips: None
) -> None:
    logits, labels = case(small, large)
    logits.requires_grad_()
    loss, predictions = upsampled_cross_entropy(logits, labels, smoothing)
    expected = plain(logits, labels, smoothing)
    assert loss.item() == pytest.approx(expected.item(), rel=1e-6)
    ours, theirs = gradient(loss, logits), gradient(expected, logits)
    assert float((ours - theirs).norm() / theirs.norm()) < 1e-6
    upsampled = functional.interpolate(logits, size=large, mode="bilinear", align_corners=False)
    assert torch.equal(predictions.long(), upsampled.argmax(dim=1))
    assert predictions.dtype == torch.uint8


@pytest.mark.parametrize(
    ("small", "large"),
    [((160, 160), (640, 640)), ((160, 160), (512, 683)), ((128, 171), (511, 682))],
)
def test_gradient_equals_the_plain_formula_at_sizes_of_real_images(
    small: tuple[int, int], large: tuple[int, int], strips: None
) -> None:
    logits, labels = case(small, large, classes=3, batch=1)
    logits.requires_grad_()
    ours, theirs = (
        gradient(upsampled_cross_entropy(logits, labels)[0], logits),
        gradient(plain(logits, labels), logits),
    )
    assert float((ours - theirs).norm() / theirs.norm()) < 1e-6


@pytest.mark.parametrize(("small", "large"), SIZES[:3])
def test_float64_agrees_to_the_last_digits(
    small: tuple[int, int], large: tuple[int, int], strips: None
) -> None:
    logits, labels = case(small, large)
    logits = logits.double().requires_grad_()
    loss, _ = upsampled_cross_entropy(logits, labels)
    expected = plain(logits, labels)
    assert loss.item() == pytest.approx(expected.item(), rel=1e-14)
    assert float((gradient(loss, logits) - gradient(expected, logits)).norm()) < 1e-14


def test_the_gradient_equals_finite_differences() -> None:
    logits, labels = case((3, 4), (7, 9), classes=3, batch=1)
    function = lambda values: 2.5 * upsampled_cross_entropy(values, labels, 0.1)[0]  # noqa: E731
    assert torch.autograd.gradcheck(function, (logits.double().requires_grad_(),))


def test_an_image_without_labels_counts_nowhere(strips: None) -> None:
    logits, labels = case((8, 8), (32, 32))
    labels[1] = 255
    logits.requires_grad_()
    loss, _ = upsampled_cross_entropy(logits, labels)
    ours = gradient(loss, logits)
    theirs = gradient(plain(logits, labels), logits)
    assert float((ours - theirs).norm() / theirs.norm()) < 1e-6
    assert not ours[1].any()
    # A batch without any label: the plain formula returns NaN, which would end a run.
    empty, predictions = upsampled_cross_entropy(logits, torch.full_like(labels, 255))
    assert empty.item() == 0.0
    assert not gradient(empty, logits).any()
    assert math.isnan(plain(logits, torch.full_like(labels, 255)).item())
    assert int(predictions.max()) < 7


def test_under_autocast_it_stays_in_float32(strips: None) -> None:
    logits, labels = case((8, 8), (33, 31))
    half = logits.bfloat16().requires_grad_()
    with torch.autocast("cpu", torch.bfloat16):
        loss, predictions = upsampled_cross_entropy(half, labels)
    assert loss.dtype == torch.float32
    wide = half.detach().float().requires_grad_()
    expected = plain(wide, labels)
    assert loss.item() == pytest.approx(expected.item(), rel=1e-6)
    ours, exact = gradient(loss, half), gradient(expected, wide)
    assert ours.dtype == torch.bfloat16
    assert (
        torch.equal(ours, exact.bfloat16())
        or float((ours.float() - exact).norm() / exact.norm()) < 2**-8
    )
    assert torch.equal(predictions, upsampled_cross_entropy(wide, labels)[1])


def test_extreme_logits_stay_finite(strips: None) -> None:
    logits, labels = case((4, 4), (16, 16))
    logits = (1e4 * logits).requires_grad_()
    loss, _ = upsampled_cross_entropy(logits, labels)
    assert loss.item() == pytest.approx(plain(logits, labels).item(), rel=1e-5)
    assert torch.isfinite(gradient(loss, logits)).all()


def test_no_grad_returns_the_same_values_without_a_graph(strips: None) -> None:
    logits, labels = case((8, 8), (32, 32))
    with torch.no_grad():
        loss, predictions = upsampled_cross_entropy(logits.requires_grad_(), labels)
    assert not loss.requires_grad
    again, same = upsampled_cross_entropy(logits, labels)
    assert again.item() == loss.item()
    assert torch.equal(predictions, same)


def test_memory_formats_do_not_matter(strips: None) -> None:
    logits, labels = case((8, 8), (32, 32))
    last = logits.to(memory_format=torch.channels_last).requires_grad_()
    loss, _ = upsampled_cross_entropy(last, labels)
    logits.requires_grad_()
    expected, _ = upsampled_cross_entropy(logits, labels)
    torch.testing.assert_close(loss, expected, rtol=1e-6, atol=0)
    torch.testing.assert_close(
        gradient(loss, last), gradient(expected, logits), rtol=1e-5, atol=1e-9
    )


def test_the_backward_pass_can_be_repeated_and_scaled(strips: None) -> None:
    logits, labels = case((8, 8), (32, 32))
    logits.requires_grad_()
    loss, _ = upsampled_cross_entropy(logits, labels)
    first, second, third = (
        torch.autograd.grad(factor * loss, logits, retain_graph=True)[0] for factor in (1, 2.5, 1)
    )
    torch.testing.assert_close(second, 2.5 * first)
    assert torch.equal(first, third)
    torch.autograd.backward(loss)  # frees the saved tensors
    torch.autograd.backward(0.4 * upsampled_cross_entropy(logits, labels)[0])
    assert logits.grad is not None
    assert not logits.grad.requires_grad  # else it would keep the whole graph alive
    torch.testing.assert_close(logits.grad, 1.4 * first)


def test_nan_logits_return_nan_loss_and_gradient(strips: None) -> None:
    logits, labels = case((8, 8), (32, 32))
    logits[0, 3, 4, 4] = math.nan
    loss, _ = upsampled_cross_entropy(logits.requires_grad_(), labels)
    assert math.isnan(loss.item())
    assert torch.isnan(gradient(loss, logits)).any()


def test_labels_may_have_another_integer_type() -> None:
    logits, labels = case((8, 8), (32, 32))
    loss, predictions = upsampled_cross_entropy(logits, labels)
    other_loss, other_predictions = upsampled_cross_entropy(logits, labels.long())
    torch.testing.assert_close(other_loss, loss)
    assert torch.equal(other_predictions, predictions.long())


def test_memory_is_a_fraction_of_the_plain_formulas() -> None:
    logits, labels = (
        torch.randn(2, 150, 128, 128, requires_grad=True),
        random_labels((512, 512), torch.device("cpu")),
    )
    ours, theirs = (
        peak_allocated(lambda loss=loss: torch.autograd.grad(loss(logits, labels), logits))
        for loss in (segmentation_loss.ours, segmentation_loss.plain)
    )
    upsampled_bytes = 2 * 150 * 512 * 512 * 4  # [B, K, H, W] in float32
    assert theirs > 2 * upsampled_bytes
    assert ours < theirs / 10
