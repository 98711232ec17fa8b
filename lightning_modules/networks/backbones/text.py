"""Pretrained text encoders as the `features` part of a classifier. `B` texts, `T` tokens, `C` channels."""

from collections.abc import Mapping
from typing import Any, Literal

import torch
from torch import Tensor, nn
from transformers import AutoModel, PretrainedConfig

from datamodules.batches import TextBatch
from lightning_modules.networks.backbones.features import BackboneError, Features
from lightning_modules.networks.backbones.hugging_face import hf_config, hf_not_loaded
from lightning_modules.networks.kernels.cpu_layers import use_cpu_layers

Pooling = Literal["pooler", "cls", "mean"]


class TextEncoder(nn.Module):
    """A Hugging Face encoder that gives pooled vectors or token states.

    The encoder stands in `model`; its layers are `features.model.encoder.layer.0` and so on.
    """

    def __init__(self, encoder: nn.Module, pooling: Pooling | None) -> None:
        """Wrap an encoder.

        Args:
            encoder: With `last_hidden_state` [B, T, C] in its output.
            pooling: What the vector of a text is: the encoder's `pooler`, the `cls` token's state,
                or the `mean` over the tokens. None gives token states.

        Raises:
            BackboneError: If the encoder has no pooler and one is asked for.
        """
        super().__init__()
        has_pooler = getattr(encoder, "pooler", None) is not None
        if pooling == "pooler" and not has_pooler:
            msg = f"{type(encoder).__name__} has no pooler: choose model.pooling=cls or mean, or model.head=bigru"
            raise BackboneError(msg)
        if has_pooler and pooling != "pooler":
            encoder.register_module(
                "pooler", None
            )  # nothing reads it, so it is neither trained nor counted
        use_cpu_layers(encoder)
        self.model = encoder
        self.pooling = pooling

    @property
    def config(self) -> PretrainedConfig:
        """The encoder's own configuration."""
        config: PretrainedConfig = self.model.config  # type: ignore[assignment]
        return config

    @property
    def width(self) -> int:
        """Channels of a feature vector, `C`."""
        return int(self.config.hidden_size)

    def forward(self, batch: TextBatch) -> Features:
        """Encode a batch.

        Args:
            batch: Padded texts.

        Returns:
            [B, C] pooled vectors, or [B, T, C] token states with their lengths.
        """
        mask = batch["attention_mask"]
        output = self.model(input_ids=batch["input_ids"], attention_mask=mask)
        if self.pooling is None:
            return Features(output.last_hidden_state, mask.sum(dim=1))
        if self.pooling == "pooler":
            return Features(output.pooler_output)
        states: Tensor = output.last_hidden_state
        if self.pooling == "cls":
            return Features(states[:, 0])
        states = states.float() if states.dtype == torch.bfloat16 else states  # a sum of many
        weights = mask.unsqueeze(-1).to(states.dtype)
        return Features((states * weights).sum(dim=1) / weights.sum(dim=1).clamp(min=1))


def text_encoder(backbone: str | Mapping[str, Any], pooling: Pooling | None) -> TextEncoder:
    """Build an encoder in float32.

    Args:
        backbone: A hub name, a local folder written by `save_pretrained`, or the values of a
            configuration with `model_type`, for random weights.
        pooling: See `TextEncoder`.

    Returns:
        The encoder, in train mode.

    Raises:
        BackboneError: If there is no such backbone, its weights are damaged or do not cover what is
            used of it.
    """
    if not isinstance(backbone, str):
        return TextEncoder(AutoModel.from_config(hf_config(backbone), dtype=torch.float32), pooling)  # type: ignore[no-untyped-call]
    try:
        encoder, loading = AutoModel.from_pretrained(
            backbone, dtype=torch.float32, output_loading_info=True
        )
    except Exception as error:  # the loaders raise anything from OSError to SafetensorError
        raise BackboneError(hf_not_loaded(backbone, error)) from error
    wrapped = TextEncoder(encoder, pooling)
    used = {name for name, _ in encoder.named_parameters()}
    missing = sorted(set(loading["missing_keys"]) & used)
    if missing:
        what = ", ".join(missing[:3]) + (", ..." if len(missing) > 3 else "")  # noqa: PLR2004
        advice = (
            "; choose model.pooling=cls or mean"
            if all("pooler" in name for name in missing)
            else ""
        )
        msg = f"{backbone}: no weights for {what}, so they would be random{advice}"
        raise BackboneError(msg)
    return wrapped.train()
