"""The states between the layers of a network, pooled to one vector for each sample.

Shapes: `B` samples, `T` tokens, `N` tokens of an image with its class token, `C` channels.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from typing import Any, NamedTuple

from torch import Tensor, nn

from lightning_modules.networks.dividing.recording import first_tensor


class PooledState(NamedTuple):
    """A state and how it is pooled.

    Attributes:
        layer: Name of the layer that receives the state; None for the output of the backbone.
        pooling: `mean` over tokens or pixels, `cls` for the class token, `last` for the last token
            of a decoder; the backbone's own pooling for its output.
    """

    layer: str | None
    pooling: str


def layer_inputs(
    model: nn.Module, layers: Iterable[str], run: Callable[[], Any]
) -> tuple[dict[str, Tensor], Any]:
    """Run a network once, and return the input of some of its layers and its output.

    Args:
        model: The network.
        layers: Names of layers that it runs once. Layers that receive no tensor are left out.
        run: Runs the network.
    """
    found: dict[str, Tensor] = {}
    with ExitStack() as stack:
        for layer in layers:
            stack.enter_context(_listening(model.get_submodule(layer), layer, found))
        return found, run()


@contextmanager
def _listening(module: nn.Module, layer: str, found: dict[str, Tensor]) -> Iterator[None]:
    def listen(_: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        state = first_tensor(args, kwargs)[1]
        if state is not None:
            found[layer] = state.clone()  # a later operation may change it in place

    handle = module.register_forward_pre_hook(listen, prepend=True, with_kwargs=True)
    try:
        yield
    finally:
        handle.remove()


def pooled_images(
    states: Mapping[str, Tensor], features: Tensor, model: nn.Module
) -> dict[PooledState, Tensor]:
    """Pool the states of images.

    Args:
        states: Layer -> its input, [B, N, C], [B, C, H, W], [B, H, W, C] or [B, C].
        features: The output of the network, [B, C].
        model: A network of timm. Its attributes say where the class token is.

    Returns:
        Vectors [B, C] in float32. States of other shapes are left out, and those whose channels
        cannot be told from their pixels.
    """
    pooled: dict[PooledState, Tensor] = {}
    for layer, state in states.items():
        if len(state) != len(features):
            continue
        values = state.float()
        pixels = _pixel_axes(values.shape, model) if values.ndim == 4 else None  # noqa: PLR2004
        if pixels is not None:
            pooled[PooledState(layer, "mean")] = values.mean(pixels)
        elif values.ndim == 3:  # noqa: PLR2004
            prefix = _tokens_before_patches(values.shape[1], model)
            pooled[PooledState(layer, "mean")] = values[:, prefix:].mean(1)
            if prefix and getattr(model, "cls_token", None) is not None:
                pooled[PooledState(layer, "cls")] = values[:, 0]
        elif values.ndim == 2:  # noqa: PLR2004
            pooled[PooledState(layer, "mean")] = values
    pooled[PooledState(None, "features")] = features.float()
    return pooled


def _pixel_axes(shape: Sequence[int], model: nn.Module) -> tuple[int, int] | None:
    """Return the axes of height and width of a state; None if they are not clear.

    Images and their states are square in most networks. The axis that differs has the channels.
    """
    _, first, second, third = shape
    if str(getattr(model, "output_fmt", "")).endswith("NHWC"):
        return 1, 2
    if second == third:
        return 2, 3
    if first == second:
        return 1, 2
    return None


def _tokens_before_patches(tokens: int, model: nn.Module) -> int:
    """Return how many class and register tokens a state has.

    Some networks, such as CaiT, add the class token after most of their blocks.
    """
    patches = getattr(getattr(model, "patch_embed", None), "num_patches", None)
    return 0 if tokens == patches else int(getattr(model, "num_prefix_tokens", 0))


def pooled_texts(
    states: Mapping[str, Tensor], mask: Tensor, *, causal: bool
) -> dict[PooledState, Tensor]:
    """Pool the states of texts.

    Args:
        states: Layer -> its input [B, T, C].
        mask: [B, T], 1 for tokens and 0 for padding after them.
        causal: Whether a token reads only those before it; its last token then stands for `cls`.

    Returns:
        Vectors [B, C] in float32. States of other shapes are left out.
    """
    weights = mask[..., None].float()
    last = mask.sum(1) - 1
    pooled: dict[PooledState, Tensor] = {}
    for layer, state in states.items():
        if state.shape[:2] != mask.shape or state.ndim != 3:  # noqa: PLR2004
            continue
        values = state.float()
        pooled[PooledState(layer, "mean")] = (values * weights).sum(1) / weights.sum(1)
        one = last if causal else last * 0
        pooled[PooledState(layer, "last" if causal else "cls")] = values[range(len(one)), one]
    return pooled
