"""Runs a network of timm in two parts."""

from functools import partial

import torch
from torch import Tensor, nn

from lightning_modules.networks.dividing.two_parts import Probe, Record, TwoParts, divide, record


def recorded(model: nn.Module, images: Tensor) -> Record:
    """Record a network on images of this size."""
    probes = []
    for count in (1, 2):
        pixels = torch.rand(count, *images.shape[1:])
        blank = torch.full_like(pixels, float("nan"))
        probes.append(Probe((count,), partial(model, pixels), partial(model, blank)))
    return record(model, probes)


def in_two_parts(model: nn.Module, layer: str, images: Tensor) -> tuple[TwoParts, Tensor]:
    """Return the parts, and the output of the second on the output of the first."""
    parts = divide(model, layer, recorded(model, images))
    state = parts.until(model, partial(model, images))
    output: Tensor = parts.since(
        model, state, (len(images),), partial(model, torch.empty_like(images))
    )
    return parts, output
