"""ToMe: merging similar tokens of a vision transformer, block by block.

Bolya et al., Token Merging: Your ViT But Faster, ICLR 2023, arXiv 2210.09461. There are no new
parameters, and the names of the existing ones stay.

Shapes: `B` images, `N` tokens, `C` channels, `h` heads, `d` channels of a head, `r` merged tokens.
"""

import math
from collections.abc import Sequence
from typing import Annotated, Any, Required, TypedDict, cast

import torch
from annotated_types import Ge, Interval
from timm.layers.attention import Attention
from timm.models import Beit, Eva, SwinTransformer, SwinTransformerV2, VisionTransformer
from timm.models.vision_transformer import Block
from torch import Tensor, nn
from torch.nn import functional

from lightning_modules.networks.tokens.errors import TokenError

Count = Annotated[int, Ge(0)]


class MergeTokensOptions(TypedDict, total=False):
    """The arguments of `merge_tokens`."""

    merged: Required[Count | list[Count]]
    inflection: Annotated[float, Interval(ge=-1, le=1)]
    proportional: bool


# What `model.merge_tokens` may be.
MergedTokens = Count | list[Count] | MergeTokensOptions

# Poolings of the last tokens that a merged token can enter with its size.
_POOLINGS = ("token", "avg")
_NOT_PLAIN = {
    (Beit, Eva): "adds the positions of tokens in its attention, and a merged token has none",
    (SwinTransformer, SwinTransformerV2): "attends within windows, which need all tokens",
}


def merged_per_block(merged: int | Sequence[int], inflection: float, depth: int) -> list[int]:
    """Return how many tokens each block merges, before the limit of half of its tokens.

    Args:
        merged: r, the same for each block, or one number for each block.
        inflection: -1..1. The number changes linearly over the blocks, from `r (1 - inflection)` to
            `r (1 + inflection)`: 0 is constant, -1 the decreasing schedule of the paper.
        depth: Number of blocks.

    Raises:
        TokenError: If a list does not have one number for each block, if an inflection is given
            with a list, or if a number is negative.
    """
    if not isinstance(merged, int):
        if len(merged) != depth:
            msg = f"received {len(merged)} numbers; give {depth}, one for each block"
            raise TokenError(msg)
        if inflection:
            msg = f"received a number for each block and inflection {inflection}; give only one"
            raise TokenError(msg)
        numbers = list(merged)
    else:
        first = merged * (1 - inflection)
        step = 2 * merged * inflection / max(1, depth - 1)
        # Rounding errors must not turn a whole number into the next smaller one.
        numbers = [math.floor(first + step * block + 1e-9) for block in range(depth)]
    if min(numbers) < 0:
        msg = f"received {min(numbers)} for a block; give 0 or more"
        raise TokenError(msg)
    return numbers


def match_tokens(keys: Tensor, merged: int, protected: int) -> tuple[Tensor, Tensor, Tensor]:
    """Choose the tokens to merge.

    Each token with an even index has a nearest token among those with an odd index. The `r` most
    similar pairs are chosen.

    Args:
        keys: [B, N, d] what is compared, by the cosine.
        merged: r, at most `(N - protected) / 2`.
        protected: Number of first tokens that are never merged.

    Returns:
        Positions among the tokens with an even index: [B, r] of those that are merged and [B,
        N_even - r] of those that stay, in order; and [B, r] the positions, among the tokens with an
        odd index, of those that they are merged into.
    """
    keys = functional.normalize(keys, dim=-1)
    similarity = keys[:, ::2] @ keys[:, 1::2].transpose(-1, -2)
    similarity[:, : (protected + 1) // 2] = -math.inf
    similarity[:, :, : protected // 2] = -math.inf
    best, nearest = similarity.max(dim=-1)
    order = best.argsort(dim=-1, descending=True, stable=True)
    source, kept = order[:, :merged], order[:, merged:].sort(dim=-1).values
    return source, kept, nearest.gather(1, source)


def merge(state: Tensor, keys: Tensor, merged: int, protected: int) -> Tensor:
    """Merge tokens into the mean of all patches that they stand for.

    Args:
        state: [B, N, C + 1] tokens; the last channel is their size, the number of patches.
        keys: [B, N, d] what is compared.
        merged: r.
        protected: Number of first tokens, such as the class token, that are never merged.

    Returns:
        [B, N - r, C + 1]: the protected tokens first, as before, then the other tokens with an even
        index, then those with an odd index. The sizes of merged tokens are added.
    """
    # Autocast would round similarities and tokens.
    with torch.autocast(state.device.type, enabled=False):
        return _merge(state, keys, merged, protected)


def _merge(state: Tensor, keys: Tensor, merged: int, protected: int) -> Tensor:
    with torch.no_grad():
        source, kept, target = match_tokens(keys.float(), merged, protected)
    size = state[..., -1:]
    weighted = torch.cat([state[..., :-1] * size, size], dim=-1)  # sums over patches
    even, odd = weighted[:, ::2], weighted[:, 1::2]
    into = functional.one_hot(target, odd.shape[1]).transpose(1, 2).to(state.dtype)
    # A matrix product adds in a fixed order on each device.
    odd = odd + into @ _rows(even, source)
    sums = torch.cat([_rows(even, kept), odd], dim=1)
    tokens = torch.cat([sums[..., :-1] / sums[..., -1:], sums[..., -1:]], dim=-1)
    return tokens[:, _order(tokens.shape[1], kept.shape[1], protected)] if protected > 1 else tokens


def _rows(values: Tensor, positions: Tensor) -> Tensor:
    """Return the rows [B, n, C] of [B, N, C] at positions [B, n]."""
    return values.gather(1, positions[..., None].expand(-1, -1, values.shape[-1]))


def _order(count: int, kept: int, protected: int) -> list[int]:
    """Return the order that puts protected tokens, which alternate between both halves, first."""
    first = [index // 2 + (index % 2) * kept for index in range(protected)]
    return first + [index for index in range(count) if index not in first]


class MergingBlock(nn.Module):
    """A block of a vision transformer that merges tokens between attention and MLP.

    Between merging blocks, each token has its size as one more channel. The state is therefore one
    tensor, as in other networks.
    """

    def __init__(
        self,
        block: Block,
        merged: int,
        protected: int,
        *,
        proportional: bool,
        last: bool,
        mean: bool,
    ) -> None:
        """Take over the layers of a block, under their names.

        Args:
            block: The block.
            merged: r; the block merges fewer where half of its tokens are fewer.
            protected: Number of first tokens that are never merged.
            proportional: Whether the attention to a token grows with its size.
            last: Whether no merging block follows.
            mean: Whether the network averages the tokens that the last block returns.
        """
        super().__init__()
        for name, child in block.named_children():
            self.add_module(name, child)
        self.merged, self.protected = merged, protected
        self.proportional, self.last, self.mean = proportional, last, mean
        self.width = cast(Attention, block.attn).qkv.in_features

    def extra_repr(self) -> str:
        """Return the settings; the key of stored features includes them."""
        return f"merged={self.merged}, protected={self.protected}, proportional={self.proportional}"

    def forward(self, state: Tensor) -> Tensor:
        """Compute [B, N, C] or, after another merging block, [B, N, C + 1] -> [B, N - r, C + 1].

        The last merging block returns [B, N - r, C].
        """
        layers: Any = self
        if state.shape[-1] == self.width:
            state = torch.cat([state, torch.ones_like(state[..., :1])], dim=-1)
        x, size = state[..., :-1], state[..., -1:]
        attended, keys = attend(layers.attn, layers.norm1(x), size if self.proportional else None)
        x = x + layers.drop_path1(layers.ls1(attended))
        merged = min(self.merged, (x.shape[1] - self.protected) // 2)
        if merged > 0:
            state = merge(torch.cat([x, size], dim=-1), keys, merged, self.protected)
            x, size = state[..., :-1], state[..., -1:]
        x = x + layers.drop_path2(layers.ls2(layers.mlp(layers.norm2(x))))
        if not self.last:
            return torch.cat([x, size], dim=-1)
        return self._weighted(x, size) if self.mean else x

    def _weighted(self, x: Tensor, size: Tensor) -> Tensor:
        """Scale the tokens, so that their plain mean is the mean over all patches."""
        own = size[:, self.protected :]
        scale = torch.cat([size[:, : self.protected], own / own.mean(dim=1, keepdim=True)], dim=1)
        return x * scale


def attend(attention: Attention, x: Tensor, size: Tensor | None) -> tuple[Tensor, Tensor]:
    """Run timm's attention, and return its keys too.

    Args:
        attention: The layer.
        x: [B, N, C].
        size: [B, N, 1] sizes of the tokens, for `softmax(q k^T / sqrt(d) + log size)`; None for
            `softmax(q k^T / sqrt(d))`.

    Returns:
        [B, N, C], and the mean over heads of the keys, [B, N, d].
    """
    qkv = attention.qkv(x).unflatten(-1, (3, attention.num_heads, attention.head_dim))
    q, k, v = qkv.permute(2, 0, 3, 1, 4).unbind(0)
    q, k = attention.q_norm(q), attention.k_norm(k)
    bias = None if size is None else size.log().transpose(1, 2)[:, None].to(q.dtype)
    out = functional.scaled_dot_product_attention(
        q, k, v, bias, attention.attn_drop.p if attention.training else 0.0
    )
    out = attention.norm(out.transpose(1, 2).flatten(2))
    if attention.gate is not None:
        out = out * attention.gate(x).sigmoid()
    return attention.proj_drop(attention.proj(out)), k.mean(dim=1)


def merge_tokens(
    model: nn.Module,
    merged: int | Sequence[int],
    inflection: float = 0.0,
    proportional: bool = True,  # noqa: FBT001, FBT002 - named in the config
) -> None:
    """Replace the blocks of a vision transformer by blocks that merge tokens.

    Without tokens to merge, the network stays as it is.

    Args:
        model: The network, changed in place.
        merged: r, or one number for each block.
        inflection: See `merged_per_block`.
        proportional: See `MergingBlock`.

    Raises:
        TokenError: If the network's attention or pooling does not allow it, or the numbers do not
            fit its blocks.
    """
    reason = _obstacle(model)
    if reason:
        msg = f"{type(model).__name__} {reason}; choose a ViT or DeiT of timm"
        raise TokenError(msg)
    network = cast(VisionTransformer, model)
    numbers = merged_per_block(merged, inflection, len(network.blocks))
    merging = [index for index, number in enumerate(numbers) if number > 0]
    for index in range(merging[0], len(numbers)) if merging else ():
        network.blocks[index] = MergingBlock(
            cast(Block, network.blocks[index]),
            numbers[index],
            network.num_prefix_tokens,
            proportional=proportional,
            last=index == len(numbers) - 1,
            mean=network.global_pool == "avg",
        )


def _obstacle(model: nn.Module) -> str:
    """Return why tokens of a network cannot be merged; empty if they can."""
    for kinds, reason in _NOT_PLAIN.items():
        if isinstance(model, kinds):
            return reason
    if not isinstance(model, VisionTransformer):
        return "is no plain vision transformer"
    if any(type(block) is not Block or type(block.attn) is not Attention for block in model.blocks):
        return "has blocks or attention of another kind, whose keys cannot be compared"
    if model.global_pool not in _POOLINGS:
        return f"pools with {model.global_pool!r}, which takes no sizes of tokens"
    if model.global_pool == "avg" and not isinstance(model.norm, nn.Identity):
        return "normalises tokens before it averages them, and the average takes no sizes then"
    if model.global_pool == "avg" and model.pool_include_prefix:
        return "averages its class token with the others, which then stand for several patches"
    return ""
