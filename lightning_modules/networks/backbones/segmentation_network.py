"""A segmentation network of Hugging Face, split into `features` and `head`.

Shapes: `B` images of `H` x `W` pixels, `K` classes.
"""

from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import Any, NamedTuple, cast

from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint
from transformers import PreTrainedModel

from datamodules.batches import SegmentationBatch
from lightning_modules.networks.backbones.pixels import PixelInput

_LABEL_KEYS = ("id2label", "label2id")  # left out of the config, because the task has the classes


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
