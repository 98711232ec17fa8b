"""Hugging Face networks for semantic segmentation, split into `features` and `head`.

Shapes: `B` images of `H` x `W` pixels, `K` classes.
"""

import logging
from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager, nullcontext
from pathlib import Path
from typing import Any, NamedTuple, cast

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint
from transformers import AutoModelForSemanticSegmentation, PreTrainedModel

from datamodules.batches import SegmentationBatch
from lightning_modules.networks.backbones.features import BackboneError
from lightning_modules.networks.backbones.hugging_face import (
    hf_config,
    hf_config_of,
    hf_loading_error,
    hf_normalization,
)
from lightning_modules.networks.backbones.pixels import PixelInput
from run_folders.errors import brief
from run_folders.memory import check_model_folder

log = logging.getLogger(__name__)

_INPUT_KEYS = ("mean", "std")
_LABEL_KEYS = ("id2label", "label2id")  # left out of the config, because the task has the classes
_SHOWN = 3  # number of weight names in a message


class SegmentationFeatures(NamedTuple):
    """The output of the backbone and the input of the head.

    Attributes:
        pixels: [B, 3, H, W] normalised; heads read only the size.
        states: The backbone's output object, including all hidden states.
    """

    pixels: Tensor
    states: Any


class SegmentationLogits(NamedTuple):
    """The output of a segmentation network.

    Attributes:
        logits: [B, K, h, w], usually a quarter of the input's height and width.
        auxiliary: [B, K, h', w'], logits of the auxiliary head, used in training only; None if the
            network has no auxiliary head.
    """

    logits: Tensor
    auxiliary: Tensor | None


class SegmentationEncoder(nn.Module):
    """Stored pixels -> hidden states.

    The backbone is the attribute `model`; a layer of BEiT is `features.model.layers.9`.
    """

    def __init__(self, model: PreTrainedModel, mean: list[float], std: list[float]) -> None:
        super().__init__()
        self.input = PixelInput(mean, std, None, "bicubic")
        self.mean, self.std = list(mean), list(std)
        self.model = model

    def forward(self, batch: SegmentationBatch) -> SegmentationFeatures:
        """Encode a batch."""
        pixels = self.input(batch["pixel_values"]).to(next(self.model.parameters()).dtype)
        return SegmentationFeatures(pixels, self.model(pixels, output_hidden_states=True))


class _ComputedBackbone(nn.Module):
    """Replaces the backbone of a network and returns the output that it has already computed."""

    states: Any = None

    def forward(self, *_: object, **__: object) -> Any:  # noqa: ANN401 - of the backbone's own kind
        return self.states


class SegmentationHead(nn.Module):
    """A network without its backbone: hidden states -> logits."""

    def __init__(self, model: PreTrainedModel, *, checkpointed: bool) -> None:
        """Remove the backbone from a network.

        Args:
            model: The network, changed in place.
            checkpointed: Whether to use activation checkpointing: training computes the head again
                in the backward pass instead of storing its activations (Chen et al. 2016, arXiv
                1604.06174).
        """
        super().__init__()
        self.model = model
        self.checkpointed = checkpointed
        setattr(model, model.base_model_prefix, _ComputedBackbone())
        self._auxiliary: Tensor | None = None
        head = getattr(model, "auxiliary_head", None)
        if isinstance(head, nn.Module):
            head.register_forward_hook(self._store_auxiliary)

    def _store_auxiliary(self, module: nn.Module, inputs: object, output: Any) -> None:  # noqa: ANN401, ARG002 - a hook's signature
        self._auxiliary = output

    def forward(self, features: SegmentationFeatures) -> SegmentationLogits:
        """Compute the logits."""
        if not (self.checkpointed and self.training):
            return self._logits(features)
        logits: SegmentationLogits = checkpoint(
            self._logits, features, use_reentrant=False, context_fn=self._contexts
        )
        return logits

    def _logits(self, features: SegmentationFeatures) -> SegmentationLogits:
        backbone = cast(_ComputedBackbone, getattr(self.model, self.model.base_model_prefix))
        backbone.states = features.states
        try:
            logits = self.model(pixel_values=features.pixels).logits
            return SegmentationLogits(logits, self._auxiliary)
        finally:
            backbone.states = self._auxiliary = None

    def _contexts(self) -> tuple[AbstractContextManager[None], AbstractContextManager[None]]:
        """Return the contexts of the forward pass and of the recomputation."""
        return nullcontext(), _frozen_statistics(self)


@contextmanager
def _frozen_statistics(module: nn.Module) -> Iterator[None]:
    """Keep BatchNorm's running statistics unchanged, because a recomputation must not count."""
    norm_types = (nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d, nn.SyncBatchNorm)
    norms = [m for m in module.modules() if isinstance(m, norm_types) and m.training]
    before = [(norm, norm.momentum, norm.num_batches_tracked) for norm in norms]
    for norm in norms:
        norm.momentum, norm.num_batches_tracked = (
            0.0,
            norm.num_batches_tracked and norm.num_batches_tracked.clone(),
        )
    try:
        yield
    finally:
        for norm, momentum, count in before:
            norm.momentum, norm.num_batches_tracked = momentum, count


class SegmentationNetwork(nn.Module):
    """A segmentation network, `head(features(batch))`.

    Attributes:
        uninitialized: Names of the parts with random weights, for messages; empty if all weights
            were loaded.
    """

    def __init__(
        self, features: SegmentationEncoder, head: SegmentationHead, uninitialized: str
    ) -> None:
        super().__init__()
        self.features = features
        self.head = head
        self.uninitialized = uninitialized

    def forward(self, batch: SegmentationBatch) -> SegmentationLogits:
        """Return the logits of a batch, at the network's own resolution."""
        return cast(SegmentationLogits, self.head(self.features(batch)))

    def config(self) -> dict[str, Any]:
        """Return the values that rebuild the network with random weights."""
        config = self.head.model.config
        known = type(config)().to_dict()
        values = {
            key: value
            for key, value in config.to_dict().items()
            if key in known and not key.endswith(_LABEL_KEYS)
        }
        return {**values, "mean": self.features.mean, "std": self.features.std}


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
    hf_config_of(backbone)  # raises its errors before the weights are loaded
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
        raise BackboneError(hf_loading_error(backbone, error)) from error
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
