"""Pretrained text encoders as the `features` part of a classifier.

Shapes: `B` texts, `T` tokens, `C` channels.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor, nn
from transformers import AutoModel, PretrainedConfig

from datamodules.batches import TextBatch
from lightning_modules.networks.backbones.features import BackboneError, Features
from lightning_modules.networks.backbones.hugging_face import hf_config, hf_loading_error
from lightning_modules.networks.kernels.cpu_layers import use_cpu_layers
from run_folders.errors import brief
from run_folders.memory import check_model_folder

Pooling = Literal["pooler", "cls", "mean"]


class TextEncoder(nn.Module):
    """A Hugging Face encoder that returns pooled vectors or the hidden states of the tokens.

    The encoder is the attribute `model`; its layers are `features.model.encoder.layer.0` and so on.
    """

    def __init__(self, encoder: nn.Module, pooling: Pooling | None) -> None:
        """Wrap an encoder.

        Args:
            encoder: An encoder whose output has `last_hidden_state` [B, T, C].
            pooling: How the vector of a text is computed: the output of the encoder's `pooler`, the
                hidden state of the `cls` token, or the `mean` of the hidden states. None returns
                the hidden states of all tokens.

        Raises:
            BackboneError: If `pooling` is `pooler` and the encoder has none.
        """
        super().__init__()
        has_pooler = getattr(encoder, "pooler", None) is not None
        if pooling == "pooler" and not has_pooler:
            msg = (
                f"{type(encoder).__name__} has no pooler: "
                f"choose model.pooling=cls or mean, or head=bigru"
            )
            raise BackboneError(msg)
        if has_pooler and pooling != "pooler":
            # Its output is unused, so its parameters must be neither trained nor counted.
            encoder.register_module("pooler", None)
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
        """Number of channels of a feature vector, `C`."""
        return int(self.config.hidden_size)

    def forward(self, batch: TextBatch) -> Features:
        """Encode a batch.

        Args:
            batch: Padded texts.

        Returns:
            [B, C] pooled vectors, or [B, T, C] hidden states with the lengths of the texts.
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
        # A sum over many tokens is inexact in bfloat16.
        states = states.float() if states.dtype == torch.bfloat16 else states
        weights = mask.unsqueeze(-1).to(states.dtype)
        return Features((states * weights).sum(dim=1) / weights.sum(dim=1).clamp(min=1))


def text_encoder(
    backbone: str | Mapping[str, Any] | nn.Module, pooling: Pooling | None
) -> TextEncoder:
    """Build an encoder in float32.

    Args:
        backbone: A hub name, a local folder written by `save_pretrained`, a mapping of
            configuration values with `model_type` for random weights, or a module that is called
            like an encoder of transformers and has `config.hidden_size`.
        pooling: See `TextEncoder`.

    Returns:
        The encoder, in train mode.

    Raises:
        BackboneError: If the backbone does not exist, or its weights are damaged or incomplete.
    """
    if isinstance(backbone, nn.Module):
        return TextEncoder(backbone, pooling).train()
    if not isinstance(backbone, str):
        config = hf_config(backbone)
        try:
            model = AutoModel.from_config(config, dtype=torch.float32)  # type: ignore[no-untyped-call]
        except Exception as error:  # constructors raise any exception
            msg = (
                f"model.backbone: {config.model_type} cannot be built from these values: "
                f"{brief(error)}"
            )
            raise BackboneError(msg) from error
        return TextEncoder(model, pooling)
    check_model_folder(Path(backbone))
    try:
        encoder, loading = AutoModel.from_pretrained(
            backbone, dtype=torch.float32, output_loading_info=True
        )
    except Exception as error:  # the loaders raise many types, from OSError to SafetensorError
        raise BackboneError(hf_loading_error(backbone, error)) from error
    wrapped = TextEncoder(encoder, pooling)
    used = {name for name, _ in encoder.named_parameters()}
    missing = sorted(set(loading["missing_keys"]) & used)
    if missing:
        names = ", ".join(missing[:3]) + (", ..." if len(missing) > 3 else "")  # noqa: PLR2004
        advice = (
            "; choose model.pooling=cls or mean"
            if all("pooler" in name for name in missing)
            else ""
        )
        msg = f"{backbone}: no weights for {names}, so they would be random{advice}"
        raise BackboneError(msg)
    return wrapped.train()
