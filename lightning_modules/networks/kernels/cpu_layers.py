"""Layers of a transformer that a CPU computes with fewer passes over memory, in bfloat16 and while training.

Under autocast a CPU spends less time in the matrix products of a small encoder than around them:
torch draws the random numbers of dropout one at a time, LayerNorm gives float32 that each of the
next three products casts again, and attention with dropout leaves the fused kernel for one that
computes in float32. What stands here computes the same formulas, in the dtype that the products
have. Without autocast to bfloat16, or on another device, the layers are torch's own to the bit. `B`
texts, `T` tokens, `H` heads, `D` channels of a head.
"""

import math
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional
from transformers import AttentionInterface, PreTrainedModel
from transformers.integrations.sdpa_attention import sdpa_attention_forward
from transformers.masking_utils import AttentionMaskInterface, sdpa_mask

_ATTENTION = "thaw_cpu"
_LEVELS = 2**15  # a probability is rounded to a multiple of 1 / _LEVELS
_WORD_BITS = 15


def use_cpu_layers(encoder: nn.Module) -> None:
    """Exchange dropout, LayerNorm and, where Hugging Face's interface allows it, attention.

    Args:
        encoder: Changed in place; parameters, their names and the modes of the modules stay.
    """
    for parent in list(encoder.modules()):
        for name, child in list(parent.named_children()):
            if type(child) is nn.Dropout:
                parent.register_module(name, Dropout(child.p).train(child.training))
            elif type(child) is nn.LayerNorm:
                parent.register_module(name, LayerNorm.like(child))
    if isinstance(encoder, PreTrainedModel) and getattr(
        encoder, "_supports_attention_backend", False
    ):
        model: Any = encoder
        if model.config._attn_implementation == "sdpa":  # noqa: SLF001 - no public name for reading it
            model.set_attn_implementation(_ATTENTION)


def _applies(x: Tensor) -> bool:
    return (
        x.device.type == "cpu"
        and torch.is_autocast_enabled("cpu")
        and torch.get_autocast_dtype("cpu") == torch.bfloat16
    )


class Dropout(nn.Dropout):
    """Dropout (Srivastava et al., JMLR 15, 2014) with random numbers drawn many at a time."""

    def forward(self, x: Tensor) -> Tensor:
        """Any shape."""
        if not (self.training and 0 < self.p < 1 and x.dtype == torch.bfloat16 and _applies(x)):
            return super().forward(x)
        return x * dropout_factors(x.shape, self.p)


class LayerNorm(nn.LayerNorm):
    """Layer normalisation that reads and gives bfloat16 where the products around it do; sums are float32 inside."""

    @classmethod
    def like(cls, layer: nn.LayerNorm) -> "LayerNorm":
        """A layer with another one's parameters, which they then share."""
        norm = cls(layer.normalized_shape, layer.eps, elementwise_affine=False)
        norm.elementwise_affine = layer.elementwise_affine
        norm.weight, norm.bias = layer.weight, layer.bias
        return norm.train(layer.training)

    def forward(self, x: Tensor) -> Tensor:
        """[..., C]."""
        return super().forward(x.to(torch.bfloat16) if _applies(x) else x)


def dropout_factors(shape: torch.Size | tuple[int, ...], p: float) -> Tensor:
    """What dropout multiplies by: 0 with probability `p`, else 1 / (1 - p).

    Four numbers of 15 bits come from each 64 random ones (SFC64, seeded from torch's generator),
    and the choice is made in integer arithmetic on the bits of a bfloat16.

    Args:
        shape: Of the result.
        p: 0..1, both excluded; rounded to a multiple of 2**-15.

    Returns:
        bfloat16 on the CPU.
    """
    count = math.prod(shape)
    generator = np.random.Generator(np.random.SFC64(int(torch.randint(2**62, ()))))
    words = torch.from_numpy(
        generator.integers(0, 2**64, size=(count + 3) // 4, dtype=np.uint64).view(np.int16)
    )[:count]
    kept = round((1 - p) * _LEVELS)
    factor = int(torch.tensor(_LEVELS / kept, dtype=torch.bfloat16).view(torch.int16))
    # A number below `kept` leaves a negative difference, whose sign fills the word: all ones, or
    # none.
    words.bitwise_and_(_LEVELS - 1).sub_(kept).bitwise_right_shift_(_WORD_BITS).bitwise_and_(factor)
    return words.view(torch.bfloat16).view(shape)


def cpu_attention(
    module: nn.Module,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | None,
    dropout: float = 0.0,
    scaling: float | None = None,
    **more: Any,  # noqa: ANN401 - whatever the interface passes on
) -> tuple[Tensor, None]:
    """Attention (Vaswani et al. 2017, arXiv 1706.03762), as Hugging Face's `AttentionInterface` asks for it.

    Args:
        module: The layer.
        query: [B, H, T, D], as `key` and `value`.
        key: See `query`.
        value: See `query`.
        attention_mask: [B, 1, T, T] bool, True where attention is paid; or numbers to be added to
            the scores.
        dropout: Of the weights, 0..1.
        scaling: Factor on the scores; None is 1 / sqrt(D).
        more: Of the interface, for torch's own attention.

    Returns:
        [B, T, H, D], and no weights.
    """
    plain = bool(
        {
            name
            for name, given in more.items()
            if name in ("position_bias", "cache", "softcap") and given is not None
        }
    )
    causal = more.get("is_causal")
    causal = getattr(module, "is_causal", True) if causal is None else causal
    plain |= (
        bool(causal and attention_mask is None) or key.shape[1] != query.shape[1]
    )  # a head of keys for several of queries
    if plain or not (dropout and query.dtype == torch.bfloat16 and _applies(query)):
        return sdpa_attention_forward(
            module, query, key, value, attention_mask, dropout=dropout, scaling=scaling, **more
        )
    batch, heads, tokens, channels = query.shape
    scaled = query * (channels**-0.5 if scaling is None else scaling)
    scores = torch.bmm(
        scaled.reshape(-1, tokens, channels),
        key.reshape(-1, key.shape[2], channels).transpose(1, 2),
    )
    if attention_mask is not None:
        added = attention_mask if attention_mask.dtype != torch.bool else _additive(attention_mask)
        scores = scores.view(batch, heads, tokens, -1).add_(added).view(batch * heads, tokens, -1)
    with torch.autocast("cpu", enabled=False):  # which would take softmax to float32
        weights = functional.softmax(scores, dim=-1)
        weights = weights * dropout_factors(weights.shape, dropout)
    mixed = torch.bmm(weights, value.reshape(batch * heads, -1, channels))
    return mixed.view(batch, heads, tokens, channels).transpose(1, 2).contiguous(), None


def _additive(mask: Tensor) -> Tensor:
    """0 where attention is paid, and so little elsewhere that nothing is left of it, even where all of a row is masked."""
    return torch.zeros(mask.shape, dtype=torch.bfloat16).masked_fill_(
        ~mask, torch.finfo(torch.bfloat16).min / 2
    )


AttentionInterface.register(_ATTENTION, cpu_attention)
AttentionMaskInterface.register(_ATTENTION, sdpa_mask)
