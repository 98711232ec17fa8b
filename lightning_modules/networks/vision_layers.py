"""Vision transformers of timm layer by layer; and their last block for those tokens alone that are read.

`B` images, `N` tokens, `C` channels, `R` tokens that the pooling reads: the class token, DeiT's distillation token.
"""

from typing import Any, cast

import torch
from timm.layers.attention import Attention
from timm.layers.drop import DropPath
from timm.layers.mlp import Mlp, SwiGLU
from timm.models import VGG, Beit, DenseNet, VisionTransformer, VisionTransformerDistilled
from timm.models import beit as timm_beit
from timm.models import vision_transformer as timm_vit
from torch import Tensor, nn
from torch.nn import functional

from lightning_modules.networks.features import names_from

_LISTED: dict[tuple[type[nn.Module], ...], str] = {(VisionTransformer, Beit): "blocks", (VGG, DenseNet): "features"}


class _ReachedError(Exception):
    """The layer that was asked for is about to run."""

    def __init__(self, state: Tensor) -> None:
        super().__init__()
        self.state = state


def input_of(model: nn.Module, layer: str, pixels: Tensor) -> Tensor:
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


def pooled_features(model: nn.Module, pixels: Tensor) -> Tensor:
    """What a network gives, [B, C], without work for tokens of the last block that nobody reads."""
    if not shortened(model):
        return cast(Tensor, model(pixels))
    last = len(cast(Any, model).blocks) - 1
    return behind_block(model, last, input_of(model, f"blocks.{last}", pixels))


def listed_layers(model: nn.Module) -> str | None:
    """Name of the list of a network's layers, which run one after another; None for networks that are not known."""
    return next((name for kinds, name in _LISTED.items() if isinstance(model, kinds)), None)


def behind(model: nn.Module, layer: str, state: Tensor) -> Tensor:
    """Run a network from a layer on.

    Args:
        model: One that `listed_layers` knows.
        layer: The first that runs.
        state: The layer's input, [B, N, C] or [B, C, H, W].

    Returns:
        [B, C] pooled features.
    """
    listed, _, first = layer.rpartition(".")
    if listed == "blocks":
        return behind_block(model, int(first), state)
    children = dict(model.get_submodule(listed).named_children())
    for name in names_from(children, first):
        state = children[name](state)
    return cast(Tensor, cast(Any, model).forward_head(state))


def behind_block(model: nn.Module, start: int, state: Tensor) -> Tensor:
    """Run a vision transformer from a block on.

    Args:
        model: The transformer.
        start: Number of the first block that runs, from 0.
        state: [B, N, C] its input.

    Returns:
        [B, C] pooled features.
    """
    whole: Any = model
    shared = whole.rel_pos_bias() if isinstance(model, Beit) and whole.rel_pos_bias is not None else None
    more = {"shared_rel_pos_bias": shared} if isinstance(model, Beit) else {}
    blocks, short = list(whole.blocks), shortened(model)
    for block in blocks[start : len(blocks) - short]:
        state = block(state, **more)
    if short:
        state = block_of_first(blocks[-1], state, tokens_read(model), shared)
    return cast(Tensor, whole.forward_head(whole.norm(state)))


def tokens_read(model: nn.Module) -> int:
    """How many first tokens the pooling reads; 0 where it reads others too, or it is not known."""
    kind: Any = type(model)
    if isinstance(model, VisionTransformerDistilled) and kind.forward_head is VisionTransformerDistilled.forward_head:
        return 2
    if isinstance(model, VisionTransformer) and kind.forward_head is VisionTransformer.forward_head:
        return int(model.global_pool == "token" and model.attn_pool is None and kind.pool is VisionTransformer.pool)
    return int(isinstance(model, Beit) and model.global_pool == "token" and kind.forward_head is Beit.forward_head)


def shortened(model: nn.Module) -> bool:
    """Whether the last block can be computed for the tokens that are read alone.

    Not where it draws random numbers: those of a shortened block would be others. Not for blocks of another kind, nor where
    keys are normalised, which takes all of them, and not where hooks watch it.
    """
    if not tokens_read(model) or type(model).forward_features not in _FORWARD or cast(Any, model).grad_checkpointing:  # type: ignore[attr-defined]
        return False
    block = cast(Any, model).blocks[-1]
    if (
        (type(block), type(block.attn)) not in _KNOWN
        or type(block.mlp) not in (Mlp, SwiGLU)
        or _is_gated_or_normalised(block.attn)
    ):
        return False
    norms = [block.norm1, block.norm2, cast(Any, model).norm]
    if not all(isinstance(norm, nn.LayerNorm | nn.Identity) for norm in norms):
        return False
    return not any(_draws(module) or _is_watched(module) for module in block.modules())


_FORWARD = (VisionTransformer.forward_features, Beit.forward_features)
_KNOWN = ((timm_vit.Block, Attention), (timm_beit.Block, timm_beit.Attention))


def _is_gated_or_normalised(attention: Any) -> bool:  # noqa: ANN401 - of either kind
    """Whether values pass a gate, or queries and keys a norm, neither of which stands below."""
    normalised = not isinstance(getattr(attention, "k_norm", nn.Identity()), nn.Identity)
    return normalised or getattr(attention, "gate", None) is not None


def _is_watched(module: nn.Module) -> bool:
    """Whether somebody wants to see all tokens go through."""
    hooks = (module._forward_pre_hooks, module._forward_hooks, module._backward_pre_hooks, module._backward_hooks)  # noqa: SLF001
    return any(hooks)


def _draws(module: nn.Module) -> bool:
    if isinstance(module, nn.Dropout):
        return module.training and module.p > 0
    return isinstance(module, DropPath) and module.training


def block_of_first(block: nn.Module, state: Tensor, read: int, shared: Tensor | None = None) -> Tensor:
    """Compute a block for the first tokens, which read the others as they come.

    Args:
        block: Of a ViT, DeiT or BEiT; see `shortened`.
        state: [B, N, C] its input.
        read: R.
        shared: [heads, N, N] relative positions that all blocks share.

    Returns:
        [B, R, C], what the whole block gives for them.
    """
    inner: Any = block
    attended = _attention(inner.attn, inner.norm1(state), read, shared)
    state = state[:, :read]
    if isinstance(block, timm_beit.Block):
        state = state + (attended if inner.gamma_1 is None else inner.gamma_1 * attended)
        changed = inner.mlp(inner.norm2(state))
        return cast(Tensor, state + (changed if inner.gamma_2 is None else inner.gamma_2 * changed))
    state = state + inner.ls1(attended)
    return cast(Tensor, state + inner.ls2(inner.mlp(inner.norm2(state))))


def _attention(attention: Any, state: Tensor, read: int, shared: Tensor | None) -> Tensor:  # noqa: ANN401 - of either kind
    """Self-attention [B, R, C] of the first tokens to all.

    Multiplied in another order, few queries need neither keys nor values of the tokens: q (W_k x) is (q W_k) x, and the
    weighted sum of values is W_v times that of tokens. The keys' bias adds one number to all scores of a query, which softmax
    does not see. What is left to be multiplied is little, and is so in float32, with the weights that autocast would take.
    """
    images, count, channels = state.shape
    heads, positions = attention.num_heads, _positions(attention, shared)
    wide = torch.promote_types(state.dtype, torch.float32)
    weight, biases = _projection(attention)
    weight = _as_autocast(weight, state.device).to(wide)
    b_q, b_v = (None if bias is None else _as_autocast(bias, state.device).to(wide) for bias in biases)
    with torch.autocast(state.device.type, enabled=False):
        tokens = state.to(wide)
        w_q, w_k, w_v = weight.view(3, heads, -1, channels).unbind()
        queries = functional.linear(tokens[:, :read], w_q.flatten(0, 1), b_q).view(images * read, heads, -1)
        queries = queries * w_q.shape[1] ** -0.5  # the width of a head, as both kinds scale
        turned = torch.bmm(queries.transpose(0, 1), w_k).view(heads, images, read, channels)
        scores = torch.bmm(turned.transpose(0, 1).flatten(1, 2), tokens.transpose(1, 2)).view(images, heads, read, count)
        for added in positions:
            scores = scores + added[..., :read, :]
        mixed = torch.bmm(scores.softmax(-1).flatten(1, 2), tokens).view(images, heads, read, channels)
        values = torch.bmm(mixed.transpose(0, 1).flatten(1, 2), w_v.transpose(1, 2)).view(heads, images, read, -1)
        values = values.permute(1, 2, 0, 3).flatten(2)
        values = (values if b_v is None else values + b_v).to(state.dtype)
    return cast(Tensor, attention.proj(attention.norm(values) if hasattr(attention, "norm") else values))


def _projection(attention: Any) -> tuple[Tensor, tuple[Tensor | None, Tensor | None]]:  # noqa: ANN401 - of either kind
    """Weight [3 C', C] of queries, keys and values, and the biases [C'] of queries and of values."""
    weight: Tensor = attention.qkv.weight
    if isinstance(attention, timm_beit.Attention):
        return weight, (attention.q_bias, attention.v_bias)
    if attention.qkv.bias is None:
        return weight, (None, None)
    b_q, _, b_v = attention.qkv.bias.view(3, -1).unbind()
    return weight, (b_q, b_v)


def _as_autocast(parameter: Tensor, device: torch.device) -> Tensor:
    """A parameter in the precision in which a layer would multiply by it."""
    half = torch.is_autocast_enabled(device.type) and parameter.dtype == torch.float32
    return parameter.to(torch.get_autocast_dtype(device.type)) if half else parameter


def _positions(attention: Any, shared: Tensor | None) -> list[Tensor]:  # noqa: ANN401 - of either kind
    """What a BEiT adds to the scores for how tokens lie to each other: numbers of the block, and of all blocks."""
    own = None if getattr(attention, "relative_position_bias_table", None) is None else attention._get_rel_pos_bias()  # noqa: SLF001
    return [part for part in (own, shared) if part is not None]
