"""Runs a network of timm in two parts."""

from functools import partial

import torch
from torch import Tensor, nn

from lightning_modules.networks.dividing.recording import Record, TrialInput, record
from lightning_modules.networks.dividing.two_parts import TwoParts, divide


def recorded(model: nn.Module, images: Tensor) -> Record:
    """Record a network on images of this size."""
    trials = []
    for count in (1, 2):
        pixels = torch.rand(count, *images.shape[1:])
        blank = torch.full_like(pixels, float("nan"))
        trials.append(TrialInput((count,), partial(model, pixels), partial(model, blank)))
    return record(model, trials)


def in_two_parts(model: nn.Module, layer: str, images: Tensor) -> tuple[TwoParts, Tensor]:
    """Return the parts, and the output of the second on the output of the first."""
    parts = divide(model, layer, recorded(model, images))
    state = parts.forward_until(model, partial(model, images))
    output: Tensor = parts.forward_from(
        model, state, (len(images),), partial(model, torch.empty_like(images))
    )
    return parts, output
