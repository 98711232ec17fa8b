"""Faster transformer layers for a CPU under bfloat16 autocast.

In a small encoder, a CPU under autocast spends more time between the matrix products than in them:

- torch draws the random numbers of dropout one at a time;
- LayerNorm returns float32, which each of the next three matrix products casts again;
- attention with dropout does not use the fused kernel, but one that computes in float32.

The layers of this module compute the same formulas in the dtype of the matrix products, with fewer
passes over memory. Without bfloat16 autocast, or on another device, they call torch's own layers,
so the results are bit-identical.

Shapes: `B` texts, `T` tokens, `H` heads, `D` channels of a head.
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
    """Replace dropout, LayerNorm and, if Hugging Face's interface allows it, attention.

    Args:
        encoder: The encoder, changed in place. Its parameters, their names and the modes of its
            modules stay the same.
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
        if model.config._attn_implementation == "sdpa":  # noqa: SLF001 - no public name to read it
            model.set_attn_implementation(_ATTENTION)


def _applies(x: Tensor) -> bool:
    return (
        x.device.type == "cpu"
        and torch.is_autocast_enabled("cpu")
        and torch.get_autocast_dtype("cpu") == torch.bfloat16
    )


class Dropout(nn.Dropout):
    """Dropout (Srivastava et al., JMLR 15, 2014) that draws random numbers in bulk."""

    def forward(self, x: Tensor) -> Tensor:
        """Apply dropout to a tensor of any shape."""
        if not (self.training and 0 < self.p < 1 and x.dtype == torch.bfloat16 and _applies(x)):
            return super().forward(x)
        return x * dropout_factors(x.shape, self.p)


class LayerNorm(nn.LayerNorm):
    """Layer normalisation with bfloat16 inputs and outputs under bfloat16 autocast on a CPU.

    Sums are float32 internally.
    """

    @classmethod
    def like(cls, layer: nn.LayerNorm) -> "LayerNorm":
        """Return a layer that shares the parameters of another one."""
        norm = cls(layer.normalized_shape, layer.eps, elementwise_affine=False)
        norm.elementwise_affine = layer.elementwise_affine
        norm.weight, norm.bias = layer.weight, layer.bias
        return norm.train(layer.training)

    def forward(self, x: Tensor) -> Tensor:
        """Normalise [..., C] over its last dimensions."""
        return super().forward(x.to(torch.bfloat16) if _applies(x) else x)


def dropout_factors(shape: torch.Size | tuple[int, ...], p: float) -> Tensor:
    """Draw the factors of dropout: 0 with probability `p`, else 1 / (1 - p).

    Each 64-bit random number (SFC64, seeded from torch's generator) yields four numbers of 15 bits.
    Integer arithmetic on the bits of bfloat16 then selects the factors.

    Args:
        shape: Shape of the result.
        p: Dropout probability, between 0 and 1 exclusive; rounded to a multiple of 2**-15.

    Returns:
        bfloat16 tensor on the CPU.
    """
    count = math.prod(shape)
    generator = np.random.Generator(np.random.SFC64(int(torch.randint(2**62, ()))))
    words = torch.from_numpy(
        generator.integers(0, 2**64, size=(count + 3) // 4, dtype=np.uint64).view(np.int16)
    )[:count]
    kept = round((1 - p) * _LEVELS)
    factor = int(torch.tensor(_LEVELS / kept, dtype=torch.bfloat16).view(torch.int16))
    # A number below `kept` has a negative difference; the shift fills the word with its sign bit.
    # The result is a mask of all ones (keep) or all zeros (drop).
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
    **more: Any,  # noqa: ANN401 - further arguments of the interface
) -> tuple[Tensor, None]:
    """Compute attention (Vaswani et al. 2017, arXiv 1706.03762) for HF's `AttentionInterface`.

    Args:
        module: The attention layer.
        query: [B, H, T, D].
        key: [B, H, T, D].
        value: [B, H, T, D].
        attention_mask: [B, 1, T, T] bool, True for positions to attend to; or numbers that are
            added to the scores.
        dropout: Dropout probability of the attention weights, 0..1.
        scaling: Factor on the scores; None means 1 / sqrt(D).
        more: Further arguments of the interface, passed to torch's own attention.

    Returns:
        [B, T, H, D], and None instead of the attention weights.
    """
    use_torch = bool(
        {
            name
            for name, given in more.items()
            if name in ("position_bias", "cache", "softcap") and given is not None
        }
    )
    causal = more.get("is_causal")
    causal = getattr(module, "is_causal", True) if causal is None else causal
    # Grouped-query attention has fewer key heads than query heads.
    use_torch |= bool(causal and attention_mask is None) or key.shape[1] != query.shape[1]
    if use_torch or not (dropout and query.dtype == torch.bfloat16 and _applies(query)):
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
    with torch.autocast("cpu", enabled=False):  # autocast would compute softmax in float32
        weights = functional.softmax(scores, dim=-1)
        weights = weights * dropout_factors(weights.shape, dropout)
    mixed = torch.bmm(weights, value.reshape(batch * heads, -1, channels))
    return mixed.view(batch, heads, tokens, channels).transpose(1, 2).contiguous(), None


def _additive(mask: Tensor) -> Tensor:
    """Convert a bool mask to values that are added to the scores: 0, or a large negative value.

    Half of the minimum of bfloat16 stays finite after the addition, so a fully masked row does not
    become NaN.
    """
    return torch.zeros(mask.shape, dtype=torch.bfloat16).masked_fill_(
        ~mask, torch.finfo(torch.bfloat16).min / 2
    )


AttentionInterface.register(_ATTENTION, cpu_attention)
AttentionMaskInterface.register(_ATTENTION, sdpa_mask)
