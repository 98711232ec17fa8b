"""Build a segmentation network of Hugging Face, from pretrained weights or at random."""

import logging
from collections.abc import Mapping
from pathlib import Path
from typing import Any, cast

import torch
from torch import nn
from transformers import AutoModelForSemanticSegmentation, PreTrainedModel

from lightning_modules.networks.backbones.features import BackboneError
from lightning_modules.networks.backbones.hugging_face import (
    hf_config,
    hf_config_of,
    hf_loading_error,
    hf_normalization,
)
from lightning_modules.networks.backbones.segmentation_network import (
    SegmentationEncoder,
    SegmentationHead,
    SegmentationNetwork,
)
from run_folders.errors import brief
from run_folders.memory import check_model_folder

log = logging.getLogger(__name__)

# Advice where the hub cannot be reached.
_RANDOM_WEIGHTS = "model.backbone='{model_type: segformer}'"

_INPUT_KEYS = ("mean", "std")
_SHOWN = 3  # number of weight names in a message


def segmentation_network(
    backbone: str | Mapping[str, Any],
    num_classes: int,
    *,
    checkpoint_encoder: bool = False,
    checkpoint_head: bool = False,
) -> SegmentationNetwork:
    """Build a network in float32.

    Args:
        backbone: A hub name, a local folder written by `save_pretrained`, or a mapping of
            configuration values with `model_type`, for random weights. The mapping may also set
            `mean` and `std` of the input's channels, 0..1.
        num_classes: K. If the weights have another number of classes, the last layers start from
            random weights.
        checkpoint_encoder: Whether to use activation checkpointing for each layer of the backbone.
        checkpoint_head: Whether to use activation checkpointing for the head as a whole.

    Returns:
        The network, in train mode.

    Raises:
        BackboneError: If the network does not exist, its weights do not cover the backbone, or it
            cannot be split into backbone and head.
    """
    stated = (
        {key: backbone[key] for key in _INPUT_KEYS if key in backbone}
        if not isinstance(backbone, str)
        else {}
    )
    if isinstance(backbone, str):
        model, uninitialized = _pretrained(backbone, num_classes)
    else:
        config = hf_config(
            {key: value for key, value in backbone.items() if key not in _INPUT_KEYS}
        )
        config.num_labels, uninitialized = num_classes, "all of it"
        try:
            model = AutoModelForSemanticSegmentation.from_config(
                config, dtype=torch.float32, trust_remote_code=False
            )  # type: ignore[no-untyped-call]
        except Exception as error:  # constructors raise any exception
            msg = (
                f"model.backbone: {config.model_type} cannot be built from these values: "
                f"{brief(error)}"
            )
            raise BackboneError(msg) from error
    base = getattr(model, model.base_model_prefix, None) if model.base_model_prefix else None
    if not isinstance(base, PreTrainedModel):
        msg = (
            f"model.backbone: {model.config.model_type} has no separate backbone module; "
            f"choose another network"
        )
        raise BackboneError(msg)
    _drop_unused_layers(model)
    if checkpoint_encoder:
        if not base.supports_gradient_checkpointing:
            msg = (
                f"model.checkpoint_encoder: {model.config.model_type} does not support "
                f"activation checkpointing; remove the option"
            )
            raise BackboneError(msg)
        # transformers 5.23 renamed the method; the old name warns there.
        enable = (
            getattr(base, "activation_checkpointing_enable", None)
            or base.gradient_checkpointing_enable
        )
        enable({"use_reentrant": False})
    mean, std = hf_normalization(
        model.config, backbone if isinstance(backbone, str) else None, stated
    )
    # `model.to` does the same, but mypy rejects the way in which transformers decorates it.
    nn.Module.to(model, memory_format=torch.channels_last)
    return SegmentationNetwork(
        SegmentationEncoder(base, mean, std),
        SegmentationHead(model, checkpointed=checkpoint_head),
        uninitialized,
    ).train()


def _pretrained(backbone: str, num_classes: int) -> tuple[PreTrainedModel, str]:
    """Return the pretrained network and the names of the layers that the weights do not cover."""
    check_model_folder(Path(backbone))
    hf_config_of(backbone, _RANDOM_WEIGHTS)  # raises its errors before the weights are loaded
    try:
        model, loading = AutoModelForSemanticSegmentation.from_pretrained(
            backbone,
            trust_remote_code=False,
            dtype=torch.float32,
            num_labels=num_classes,
            ignore_mismatched_sizes=True,
            output_loading_info=True,
        )
    except Exception as error:  # the loaders raise many types, from OSError to SafetensorError
        raise BackboneError(hf_loading_error(backbone, error, _RANDOM_WEIGHTS)) from error
    random = sorted({*loading["missing_keys"], *(entry[0] for entry in loading["mismatched_keys"])})
    in_backbone = [name for name in random if name.startswith(f"{model.base_model_prefix}.")]
    listed = in_backbone or random
    names = ", ".join(listed[:_SHOWN]) + (", ..." if len(listed) > _SHOWN else "")
    if in_backbone:
        msg = (
            f"{backbone}: no weights for {names}, so they would be random; "
            f"check that the weights belong to this network"
        )
        raise BackboneError(msg)
    if random:
        log.warning(
            "%s has no weights with %d classes for %s: these layers start from random weights",
            backbone,
            num_classes,
            names,
        )
    return model, names


def _drop_unused_layers(model: PreTrainedModel) -> None:
    """Remove the layers of BEiT and Data2Vec after the last hidden state that the head reads.

    They would receive no gradients. `out_indices` of these networks counts the hidden states from
    1, including the embeddings: [3, 5, 7, 11] reads ten layers.
    """
    if model.config.model_type not in ("beit", "data2vec-vision"):
        return
    base = cast(Any, getattr(model, model.base_model_prefix))
    parent, name = (
        (base, "layers") if model.config.model_type == "beit" else (base.encoder, "layer")
    )
    setattr(parent, name, getattr(parent, name)[: max(model.config.out_indices) - 1])
    base.layernorm = nn.Identity()
