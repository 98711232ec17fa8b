"""Networks of timm that run up to a layer, or from a layer on. `B` images, `N` tokens, `C` channels."""

from typing import Any, cast

from timm.models import VGG, Beit, DenseNet, VisionTransformer
from torch import Tensor, nn

from lightning_modules.networks.backbones.features import starting_at

_LISTED: dict[tuple[type[nn.Module], ...], str] = {
    (VisionTransformer, Beit): "blocks",
    (VGG, DenseNet): "features",
}


class _ReachedError(Exception):
    """The layer that was asked for is about to run."""

    def __init__(self, state: Tensor) -> None:
        super().__init__()
        self.state = state


def forward_until(model: nn.Module, layer: str, pixels: Tensor) -> Tensor:
    """Run a network up to a layer.

    Args:
        model: Any network that calls the layer with one tensor first.
        layer: Its name.
        pixels: [B, 3, h, w], normalised.

    Returns:
        The layer's input; neither it nor anything behind it is computed.
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
    """Name of the list of a network's layers, which run one after another; None for networks that are not known."""
    return next((name for kinds, name in _LISTED.items() if isinstance(model, kinds)), None)


def forward_from(model: nn.Module, layer: str, state: Tensor) -> Tensor:
    """Run a network from a layer on.

    Args:
        model: One that `block_list` knows.
        layer: The first that runs.
        state: The layer's input, [B, N, C] or [B, C, H, W].

    Returns:
        [B, C] pooled features.
    """
    whole: Any = model
    listed, _, first = layer.rpartition(".")
    children = dict(model.get_submodule(listed).named_children())
    shared = (
        model.rel_pos_bias() if isinstance(model, Beit) and model.rel_pos_bias is not None else None
    )
    more = {"shared_rel_pos_bias": shared} if isinstance(model, Beit) else {}
    for name in starting_at(children, first):
        state = children[name](state, **more)
    if listed == "blocks":
        state = whole.norm(state)
    return cast(Tensor, whole.forward_head(state))
