"""Tokens and multiplications of each block of a network."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode


@dataclass(frozen=True)
class BlockCost:
    """What a block computes for one image.

    Attributes:
        block: Its name in the network.
        tokens: Number of tokens that it returns.
        multiplications: Multiplications of its matrix products and convolutions.
    """

    block: str
    tokens: int
    multiplications: int


def block_costs(model: nn.Module, blocks: str, pixels: Tensor) -> list[BlockCost]:
    """Run an image and count what each block computes.

    Args:
        model: The network.
        blocks: Name of its list of blocks, whose states are [B, N, C] or [B, H, W, C].
        pixels: [1, 3, h, w].
    """
    tokens: dict[str, int] = {}
    names = [f"{blocks}.{name}" for name, _ in model.get_submodule(blocks).named_children()]

    def listening_to(name: str) -> Any:  # noqa: ANN401 - a hook
        def listen(_: nn.Module, __: object, output: Tensor) -> None:
            tokens[name] = output[0, ..., 0].numel()

        return model.get_submodule(name).register_forward_hook(listen)

    handles = [listening_to(name) for name in names]
    try:
        operations = _operations(model, partial(model, pixels))
    finally:
        for handle in handles:
            handle.remove()
    root = type(model).__name__
    return [
        BlockCost(name, tokens[name], sum(operations.get(f"{root}.{name}", {}).values()) // 2)
        for name in names
    ]


def multiplications(model: nn.Module, run: Callable[[], object]) -> int:
    """Return the multiplications of the matrix products and convolutions of a forward pass.

    Args:
        model: The network; it runs in eval mode.
        run: Runs the network.
    """
    return sum(_operations(model, run).get("Global", {}).values()) // 2


def _operations(model: nn.Module, run: Callable[[], object]) -> dict[str, dict[Any, int]]:
    """Return module -> operation -> number of multiplications and additions."""
    training = [module for module in model.modules() if module.training]
    trainable = [parameter for parameter in model.parameters() if parameter.requires_grad]
    try:
        # The counter fails if a module receives a parameter that needs gradients.
        model.requires_grad_(requires_grad=False)
        # The counter knows the products of this kernel in every version of PyTorch.
        with (
            sdpa_kernel(SDPBackend.MATH),
            FlopCounterMode(display=False) as counter,
            torch.no_grad(),
        ):
            model.eval()
            run()
    finally:
        for module in training:
            module.training = True
        for parameter in trainable:
            parameter.requires_grad = True
    counts: dict[str, dict[Any, int]] = counter.get_flop_counts()
    return counts
