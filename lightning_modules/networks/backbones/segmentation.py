"""Hugging Face's networks for semantic segmentation, cut into `features` and `head`. `B` images of `H` x `W` pixels."""

import logging
from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import Any, NamedTuple, cast

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint
from transformers import AutoModelForSemanticSegmentation, PreTrainedModel

from datamodules.batches import SegmentationBatch
from lightning_modules.networks.backbones.features import BackboneError
from lightning_modules.networks.backbones.hugging_face import hf_config, hf_input, hf_not_loaded
from lightning_modules.networks.backbones.pixels import PixelInput
from run_folders.errors import brief

log = logging.getLogger(__name__)

_INPUT_KEYS = ("mean", "std")
_OF_LABELS = ("id2label", "label2id")  # the task knows its classes
_SHOWN = 3  # names of weights in a message


class SegmentationFeatures(NamedTuple):
    """What the backbone hands to the head.

    Attributes:
        pixels: [B, 3, H, W] normalised, of which heads read the size.
        states: What the backbone computed, hidden states included.
    """

    pixels: Tensor
    states: Any


class SegmentationLogits(NamedTuple):
    """What a network for segmentation gives.

    Attributes:
        logits: [B, K, h, w], as a rule a quarter of the input's height and width.
        auxiliary: [B, K, h', w'] of the auxiliary head, which only training needs; None where there
            is none.
    """

    logits: Tensor
    auxiliary: Tensor | None


class SegmentationEncoder(nn.Module):
    """Stored pixels -> hidden states. The backbone stands in `model`: a layer is `features.model.layers.9` for BEiT."""

    def __init__(self, model: PreTrainedModel, mean: list[float], std: list[float]) -> None:
        super().__init__()
        self.input = PixelInput(mean, std, None, "bicubic")
        self.mean, self.std = list(mean), list(std)
        self.model = model

    def forward(self, batch: SegmentationBatch) -> SegmentationFeatures:
        """Encode a batch."""
        pixels = self.input(batch["pixel_values"]).to(next(self.model.parameters()).dtype)
        return SegmentationFeatures(pixels, self.model(pixels, output_hidden_states=True))


class _Computed(nn.Module):
    """Stands in a network where its backbone was, and gives what that has computed."""

    states: Any = None

    def forward(self, *_: object, **__: object) -> Any:  # noqa: ANN401 - of the backbone's own kind
        return self.states


class SegmentationHead(nn.Module):
    """All of a network but its backbone: hidden states -> logits."""

    def __init__(self, model: PreTrainedModel, *, checkpointed: bool) -> None:
        """Take the backbone out of a network.

        Args:
            model: The network, changed in place.
            checkpointed: Whether training computes the head a second time in the backward pass
                instead of keeping what it computed (Chen et al. 2016, arXiv 1604.06174).
        """
        super().__init__()
        self.model = model
        self.checkpointed = checkpointed
        setattr(model, model.base_model_prefix, _Computed())
        self._auxiliary: Tensor | None = None
        head = getattr(model, "auxiliary_head", None)
        if isinstance(head, nn.Module):
            head.register_forward_hook(self._keep)

    def _keep(self, module: nn.Module, inputs: object, output: Any) -> None:  # noqa: ANN401, ARG002 - a hook's signature
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
        place = cast(_Computed, getattr(self.model, self.model.base_model_prefix))
        place.states = features.states
        try:
            logits = self.model(pixel_values=features.pixels).logits
            return SegmentationLogits(logits, self._auxiliary)
        finally:
            place.states = self._auxiliary = None

    def _contexts(self) -> tuple[AbstractContextManager[None], AbstractContextManager[None]]:
        return nullcontext(), _still_statistics(self)


@contextmanager
def _still_statistics(module: nn.Module) -> Iterator[None]:
    """Leave the running statistics of BatchNorm as they are, for what is computed a second time."""
    kinds = (nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d, nn.SyncBatchNorm)
    norms = [m for m in module.modules() if isinstance(m, kinds) and m.training]
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
    """`head(features(batch))`, as every network here.

    Attributes:
        uninitialized: What has random weights, for a person; empty where all were loaded.
    """

    def __init__(
        self, features: SegmentationEncoder, head: SegmentationHead, uninitialized: str
    ) -> None:
        super().__init__()
        self.features = features
        self.head = head
        self.uninitialized = uninitialized

    def forward(self, batch: SegmentationBatch) -> SegmentationLogits:
        """Logits of a batch, at the network's own resolution."""
        return cast(SegmentationLogits, self.head(self.features(batch)))

    def config(self) -> dict[str, Any]:
        """What it can be built from again, with random weights."""
        config = self.head.model.config
        known = type(config)().to_dict()
        values = {
            key: value
            for key, value in config.to_dict().items()
            if key in known and not key.endswith(_OF_LABELS)
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
        backbone: A hub name, a local folder written by `save_pretrained`, or the values of a
            configuration with `model_type`, for random weights; the values may also say mean and
            std of the input's channels, 0..1.
        num_classes: K. Weights of another number of classes serve for everything but the last
            layers, which start anew.
        checkpoint_encoder: Whether training computes each layer of the backbone a second time in
            the backward pass instead of keeping what it computed.
        checkpoint_head: The same for the head as a whole.

    Returns:
        The network, in train mode.

    Raises:
        BackboneError: If there is no such network, its weights do not cover the backbone, or it
            cannot be cut in two.
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
            model = AutoModelForSemanticSegmentation.from_config(config, dtype=torch.float32)  # type: ignore[no-untyped-call]
        except Exception as error:  # constructors raise anything
            msg = f"model.backbone: {config.model_type} cannot be built so: {brief(error)}"
            raise BackboneError(msg) from error
    base = getattr(model, model.base_model_prefix, None) if model.base_model_prefix else None
    if not isinstance(base, PreTrainedModel):
        msg = f"model.backbone: a {model.config.model_type} has no backbone of its own that could be frozen; take another network"
        raise BackboneError(msg)
    _drop_unread_layers(model)
    if checkpoint_encoder:
        if not base.supports_gradient_checkpointing:
            msg = f"model.checkpoint_encoder: a {model.config.model_type} cannot do that; leave it out"
            raise BackboneError(msg)
        # Renamed in transformers 5.23; the old name warns there.
        enable = (
            getattr(base, "activation_checkpointing_enable", None)
            or base.gradient_checkpointing_enable
        )
        enable({"use_reentrant": False})
    mean, std = hf_input(model.config, backbone if isinstance(backbone, str) else None, stated)
    nn.Module.to(model, memory_format=torch.channels_last)
    return SegmentationNetwork(
        SegmentationEncoder(base, mean, std),
        SegmentationHead(model, checkpointed=checkpoint_head),
        uninitialized,
    ).train()


def _pretrained(backbone: str, num_classes: int) -> tuple[PreTrainedModel, str]:
    """The network, and what of it the weights did not cover."""
    try:
        model, loading = AutoModelForSemanticSegmentation.from_pretrained(
            backbone,
            dtype=torch.float32,
            num_labels=num_classes,
            ignore_mismatched_sizes=True,
            output_loading_info=True,
        )
    except Exception as error:  # the loaders raise anything from OSError to SafetensorError
        raise BackboneError(hf_not_loaded(backbone, error)) from error
    random = sorted({*loading["missing_keys"], *(entry[0] for entry in loading["mismatched_keys"])})
    of_backbone = [name for name in random if name.startswith(f"{model.base_model_prefix}.")]
    what = ", ".join((of_backbone or random)[:_SHOWN]) + (
        ", ..." if len(of_backbone or random) > _SHOWN else ""
    )
    if of_backbone:
        msg = (
            f"{backbone}: no weights for {what}, so they would be random; is it of another network?"
        )
        raise BackboneError(msg)
    if random:
        log.warning(
            "%s has no weights of %d classes for %s: these start from random ones",
            backbone,
            num_classes,
            what,
        )
    return model, what


def _drop_unread_layers(model: PreTrainedModel) -> None:
    """Take away what of BEiT and Data2Vec stands behind the last states that the head reads: nothing would train it.

    Their `out_indices` count the hidden states from 1, the embeddings' included, so that [3, 5, 7,
    11] reads ten layers.
    """
    if model.config.model_type not in ("beit", "data2vec-vision"):
        return
    base = cast(Any, getattr(model, model.base_model_prefix))
    place, name = (base, "layers") if model.config.model_type == "beit" else (base.encoder, "layer")
    setattr(place, name, getattr(place, name)[: max(model.config.out_indices) - 1])
    base.layernorm = nn.Identity()
