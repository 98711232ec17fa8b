"""An image network as the `features` part of a classifier: stored pixels -> pooled features.

Shapes: `B` images, `C` channels, `N` tokens.
"""

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from typing import Any, cast, get_args

import torch
from timm.models import VisionTransformer
from torch import Tensor, nn

from datamodules.batches import ImageBatch
from lightning_modules.networks.backbones.divided_encoder import DividedEncoder
from lightning_modules.networks.backbones.features import BackboneError, Features
from lightning_modules.networks.backbones.pixels import (
    Interpolation,
    PixelInput,
    check_channel_values,
)
from lightning_modules.networks.dividing.counting import BlockCost, block_costs
from lightning_modules.networks.dividing.layer_states import (
    PooledState,
    layer_inputs,
    pooled_images,
)
from lightning_modules.networks.dividing.recording import Record, TrialInput, record
from lightning_modules.networks.tokens.fdvit import FDViT
from run_folders.errors import brief

_PROBE_SIZE = 32  # side in pixels of the trial image for networks without a fixed input size
# Pixels that a CPU evaluates at a time, so that a layer's outputs stay in the processor's cache.
_CHUNK_PIXELS = 16 * 224**2


class ImageEncoder(DividedEncoder):
    """Stored pixels -> pooled features.

    The network without its classifier is the attribute `model`: timm's layer `blocks.11` is
    `features.model.blocks.11`.

    Attributes:
        new_parts: Names of modules of `model` that no pretrained weights have.
    """

    def __init__(
        self, model: nn.Module, config: Mapping[str, Any], new_parts: Sequence[str] = ()
    ) -> None:
        """Wrap a network.

        Args:
            model: A network: normalised pixels [B, 3, h, w] -> features [B, C].
            config: The values that rebuild the network, and `size` (height and width, or None),
                `mean`, `std` and `interpolation` of its input.
            new_parts: See the class.

        Raises:
            BackboneError: If the config does not describe an input, or the network cannot process
                it.
        """
        super().__init__()
        size = _checked_input(config)
        self.input = PixelInput(config["mean"], config["std"], size, config["interpolation"])
        self.config = dict(config)
        self.new_parts = tuple(new_parts)
        self.model = model.to(memory_format=torch.channels_last)
        self.width = self._width(size or (_PROBE_SIZE, _PROBE_SIZE))

    def _width(self, size: tuple[int, int]) -> int:
        """Run the network on a blank image and return its number of features."""
        was_training = self.model.training
        try:
            with torch.no_grad():
                features = self.model.eval()(torch.zeros(1, 3, *size))
        except (RuntimeError, ValueError, AssertionError) as error:
            architecture, (height, width) = self.config["architecture"], size
            own = getattr(self.model, "input_config", {}).get("size")
            advice = (
                f"use {own[0]} x {own[1]}, or other arguments" if own else "set model.image_size"
            )
            msg = (
                f"model.backbone: {architecture} cannot read {height} x {width} pixels "
                f"({brief(error)}); {advice}"
            )
            raise BackboneError(msg) from error
        self.model.train(was_training)
        if features.ndim != 2:  # noqa: PLR2004
            msg = (
                f"model.backbone={self.config['architecture']}: received features of shape "
                f"{tuple(features.shape)}; pooled features [B, C] are needed; "
                f"choose another network"
            )
            raise BackboneError(msg)
        return int(features.shape[1])

    def forward(self, batch: ImageBatch) -> Features:
        """Return the pooled features [B, C] of a batch."""
        return Features(self._in_chunks(self.model, batch))

    def forward_with_reconstruction(
        self, batch: ImageBatch, masked: float
    ) -> tuple[Features, Tensor]:
        """Return the pooled features [B, C], and FDViT's reconstruction loss."""
        network = cast(FDViT, self.model)
        pooled, loss = network.forward_with_reconstruction(
            self.preprocess(batch["pixel_values"]), masked
        )
        return Features(pooled), loss

    def block_costs(self) -> list[BlockCost]:
        """Return tokens and multiplications of each block of a vision transformer."""
        if not isinstance(self.model, VisionTransformer | FDViT):
            return []
        blocks = "stages" if isinstance(self.model, FDViT) else "blocks"
        pixels = next(self.model.parameters()).new_zeros(1, 3, *self._size)
        return block_costs(self.model, blocks, pixels)

    def record(self) -> Record:
        """Run `model` on a few random images and record which modules run."""
        weight, random = next(self.model.parameters()), torch.Generator().manual_seed(0)
        trials = []
        for count in (1, 2):
            pixels = torch.rand(count, 3, *self._size, generator=random).to(weight)
            blank = torch.full_like(pixels, math.nan)
            run, run_blank = partial(self.model, pixels), partial(self.model, blank)
            trials.append(TrialInput((count,), run, run_blank))
        return record(self.model, trials)

    def why_undivided(self) -> str:
        """Return why the network can be divided before no layer; empty if it can."""
        if isinstance(self.model, FDViT) and self.model.decoders is not None:
            return "the reconstruction loss needs the output of every stage"
        if self.config["size"] is None:
            return "it states no size of its input; set model.image_size"
        return ""

    def forward_until(self, layer: str, batch: ImageBatch) -> Features:
        """Return the input of a layer of `model`, for example [B, N, C] or [B, C, H, W]."""
        parts = self.parts(layer)

        def run(pixels: Tensor) -> Tensor:
            return parts.forward_until(self.model, partial(self.model, pixels))

        return Features(self._in_chunks(run, batch))

    def forward_from(self, layer: str, state: Features) -> Features:
        """Return the pooled features [B, C] from the input of a layer."""
        values = state.values
        blank = values.new_empty(len(values), 3, *self._size)
        parts, run = self.parts(layer), partial(self.model, blank)
        return Features(parts.forward_from(self.model, values, (len(values),), run))

    def layer_features(
        self, layers: Sequence[str], batch: ImageBatch
    ) -> dict[str | None, Features]:
        """Run once, and return the input of each layer and, for None, the output."""
        found: dict[str | None, list[Tensor]] = {}
        for pixels in self._chunks(batch):
            states, features = layer_inputs(self.model, layers, partial(self.model, pixels))
            for layer, state in (*states.items(), (None, features)):
                found.setdefault(layer, []).append(state)
        return {layer: Features(torch.cat(parts)) for layer, parts in found.items()}

    def pooled_states(self, layers: Sequence[str], batch: ImageBatch) -> dict[PooledState, Tensor]:
        """Return the inputs of layers and the output, each pooled to vectors [B, C]."""
        found: dict[PooledState, list[Tensor]] = {}
        for pixels in self._chunks(batch):
            states, features = layer_inputs(self.model, layers, partial(self.model, pixels))
            for state, values in pooled_images(states, features, self.model).items():
                found.setdefault(state, []).append(values)
        return {state: torch.cat(values) for state, values in found.items()}

    @property
    def _size(self) -> tuple[int, int]:
        """Height and width of an image that the network can read."""
        height, width = self.config["size"] or (_PROBE_SIZE, _PROBE_SIZE)
        return height, width

    def preprocess(self, stored: Tensor) -> Tensor:
        """Resize and normalise stored pixels to the network's input [B, 3, h, w].

        The result has the dtype of the weights.
        """
        pixels: Tensor = self.input(stored)
        return pixels.to(next(self.model.parameters(), pixels).dtype)

    def _in_chunks(self, run: Callable[[Tensor], Tensor], batch: ImageBatch) -> Tensor:
        """Run a batch in the chunks of `_chunks`."""
        results = [run(pixels) for pixels in self._chunks(batch)]
        return results[0] if len(results) == 1 else torch.cat(results)

    def _chunks(self, batch: ImageBatch) -> Iterator[Tensor]:
        """Yield the network's input in chunks on a CPU in eval mode, which is faster there.

        In train mode BatchNorm depends on the whole batch, so there is one chunk.
        """
        stored = batch["pixel_values"]
        height, width = self.config["size"] or stored.shape[-2:]
        count = max(1, _CHUNK_PIXELS // (height * width))
        if self.training or stored.device.type != "cpu" or len(stored) <= count:
            count = max(1, len(stored))
        yield from map(self.preprocess, torch.split(stored, count))


def _checked_input(config: Mapping[str, Any]) -> tuple[int, int] | None:
    """Check the description of the input and return its height and width.

    Raises:
        BackboneError: If `mean`, `std`, `interpolation` or `size` is invalid.
    """
    for key in ("mean", "std"):
        check_channel_values(key, config[key])
    if config["interpolation"] not in get_args(Interpolation):
        msg = (
            f"model.backbone.interpolation: received {config['interpolation']!r}; "
            f"choose {', '.join(get_args(Interpolation))}"
        )
        raise BackboneError(msg)
    size = config["size"]
    if size is None:
        return None
    if (
        not isinstance(size, list | tuple)
        or [type(side) for side in size] != [int, int]
        or min(size) < 1
    ):
        msg = f"model.backbone.size: received {size!r}; [height, width] in pixels is needed"
        raise BackboneError(msg)
    return size[0], size[1]
