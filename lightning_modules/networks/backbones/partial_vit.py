"""Running timm networks up to a layer, or from a layer on.

Shapes: `B` images, `N` tokens, `C` channels.
"""

from typing import Any, cast

from timm.models import VGG, Beit, DenseNet, VisionTransformer
from torch import Tensor, nn

from lightning_modules.networks.backbones.features import starting_at
from lightning_modules.networks.tokens.fdvit import FDViT

_BLOCK_LISTS: dict[tuple[type[nn.Module], ...], str] = {
    (VisionTransformer, Beit): "blocks",
    (VGG, DenseNet): "features",
    (FDViT,): "stages",
}


class _ReachedError(Exception):
    """Stops the forward pass at the requested layer and carries its input."""

    def __init__(self, state: Tensor) -> None:
        super().__init__()
        self.state = state


def forward_until(model: nn.Module, layer: str, pixels: Tensor) -> Tensor:
    """Run a network up to a layer, without the layer itself.

    Args:
        model: A network whose layer receives the hidden state as its first argument.
        layer: Name of the layer.
        pixels: [B, 3, h, w], normalised.

    Returns:
        The layer's input.

    Raises:
        RuntimeError: If the forward pass of the network does not run the layer.
    """

    def stop(_: nn.Module, inputs: tuple[Any, ...]) -> None:
        raise _ReachedError(inputs[0])

    handle = model.get_submodule(layer).register_forward_pre_hook(stop, prepend=True)
    try:
        model(pixels)
    except _ReachedError as reached:
        return reached.state
    finally:
        handle.remove()
    msg = f"{type(model).__name__} does not run its layer {layer}"
    raise RuntimeError(msg)


def block_list(model: nn.Module) -> str | None:
    """Return the name of the network's sequential list of layers; None for unsupported networks.

    FDViT with decoders is not supported: its reconstruction loss needs the output of each layer.
    """
    if isinstance(model, FDViT) and model.decoders is not None:
        return None
    return next((name for kinds, name in _BLOCK_LISTS.items() if isinstance(model, kinds)), None)


def forward_from(model: nn.Module, layer: str, state: Tensor) -> Tensor:
    """Run a network from a layer on.

    Args:
        model: A network that `block_list` supports.
        layer: Name of the first layer to run.
        state: Input of that layer, [B, N, C] or [B, C, H, W].

    Returns:
        [B, C] pooled features.
    """
    network: Any = model
    blocks, _, first = layer.rpartition(".")
    children = dict(model.get_submodule(blocks).named_children())
    shared = (
        model.rel_pos_bias() if isinstance(model, Beit) and model.rel_pos_bias is not None else None
    )
    kwargs = {"shared_rel_pos_bias": shared} if isinstance(model, Beit) else {}
    for name in starting_at(children, first):
        state = children[name](state, **kwargs)
    if blocks == "blocks":
        state = network.norm(state)
    return cast(Tensor, network.forward_head(state))
