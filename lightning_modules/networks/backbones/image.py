"""Image networks as the `features` part of a classifier: all of timm, and two of Thaw's own.

Shapes: `B` images, `C` channels.
"""

import json
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import Any, TypedDict, cast, get_args

import timm
import torch
from torch import Tensor, nn

from datamodules.batches import ImageBatch
from lightning_modules.networks.backbones.features import BackboneError, Features
from lightning_modules.networks.backbones.image_weights import (
    load_weights,
    loading_error,
    timm_network,
    weights_file,
)
from lightning_modules.networks.backbones.partial_vit import block_list, forward_from, forward_until
from lightning_modules.networks.backbones.pixels import (
    FlatPixels,
    Interpolation,
    PixelInput,
    check_channel_values,
)
from lightning_modules.networks.backbones.small_resnet import SmallResNet
from run_folders.errors import brief, near_names
from run_folders.untrusted import read_json

OWN: dict[str, type[nn.Module]] = {"small_resnet": SmallResNet, "flat_pixels": FlatPixels}
_INPUT_KEYS = ("size", "mean", "std", "interpolation")
_GREY = (0.5, 0.5, 0.5)
# Arguments of timm that load files or change what is loaded.
_LOADING = {
    "checkpoint_path",
    "pretrained",
    "pretrained_cfg",
    "pretrained_cfg_overlay",
    "cache_dir",
}
_DEFAULT_INPUT = {"size": None, "mean": _GREY, "std": _GREY, "interpolation": "bicubic"}
_PROBE_SIZE = 32  # side in pixels of the probe image for networks without a fixed input size
# Pixels that a CPU evaluates at a time, so that a layer's outputs stay in the processor's cache.
_CHUNK_PIXELS = 16 * 224**2


class ImageEncoder(nn.Module):
    """Stored pixels -> pooled features.

    The network without its classifier is the attribute `model`: timm's layer `blocks.11` is
    `features.model.blocks.11`.
    """

    def __init__(self, model: nn.Module, config: Mapping[str, Any]) -> None:
        """Wrap a network.

        Args:
            model: A network: normalised pixels [B, 3, h, w] -> features [B, C].
            config: The values that rebuild the network, and `size` (height and width, or None),
                `mean`, `std` and `interpolation` of its input.

        Raises:
            BackboneError: If the config does not describe an input, or the network cannot process
                it.
        """
        super().__init__()
        size = _checked_input(config)
        self.input = PixelInput(config["mean"], config["std"], size, config["interpolation"])
        self.config = dict(config)
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
            msg = (
                f"model.backbone: {architecture} cannot read {height} x {width} pixels "
                f"({brief(error)}); set model.image_size"
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

    @property
    def block_list(self) -> str | None:
        """Name of the list of layers in `model`; None if the network cannot run in two parts."""
        return block_list(self.model)

    def forward_until(self, layer: str, batch: ImageBatch) -> Features:
        """Return the input of a layer of `model`: [B, N, C] or [B, C, H, W]."""
        return Features(self._in_chunks(partial(forward_until, self.model, layer), batch))

    def forward_from(self, layer: str, state: Features) -> Features:
        """Return the pooled features [B, C] from the input of a layer."""
        return Features(forward_from(self.model, layer, state.values))

    def preprocess(self, stored: Tensor) -> Tensor:
        """Resize and normalise stored pixels to the network's input [B, 3, h, w].

        The result has the dtype of the weights.
        """
        pixels: Tensor = self.input(stored)
        return pixels.to(next(self.model.parameters(), pixels).dtype)

    def _in_chunks(self, run: Callable[[Tensor], Tensor], batch: ImageBatch) -> Tensor:
        """Run a batch in chunks on a CPU in eval mode, which is faster there.

        In train mode BatchNorm depends on the whole batch, so there are no chunks.
        """
        stored = batch["pixel_values"]
        height, width = self.config["size"] or stored.shape[-2:]
        count = max(1, _CHUNK_PIXELS // (height * width))
        if self.training or stored.device.type != "cpu" or len(stored) <= count:
            return run(self.preprocess(stored))
        return torch.cat([run(self.preprocess(chunk)) for chunk in torch.split(stored, count)])


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


def image_encoder(
    backbone: str | Mapping[str, Any] | nn.Module, weights: str | None, image_size: int | None
) -> ImageEncoder:
    """Build a network in float32.

    Args:
        backbone: One of these:
            - a timm model name, with or without the tag of its weights;
            - `hf-hub:owner/name`;
            - a local folder with config.json and model.safetensors, as saved by timm;
            - a mapping with `architecture` and the network's own arguments, for random weights. It
              may also set `size`, `mean`, `std` and `interpolation` of the input;
            - a module that maps normalised pixels [B, 3, h, w] to features [B, C]. Its attribute
              `input_config` may set the same keys.
        weights: A local file of weights (.safetensors, or a .pth file with tensors only), or a
            folder that contains one; None loads the backbone's own pretrained weights.
        image_size: Side of the input in pixels; None uses the size that the weights were trained
            with.

    Returns:
        The encoder, in train mode.

    Raises:
        BackboneError: If the backbone does not exist, or its weights are damaged or incomplete.
    """
    file = None if weights is None else weights_file(Path(weights), "model.weights")
    if isinstance(backbone, nn.Module):
        return _own_encoder(backbone, file, image_size)
    architecture, arguments, source = _parse_backbone(backbone)
    arguments.pop("num_classes", None)  # belongs to the task of the saved weights
    if isinstance(backbone, str) and file is None and Path(backbone).is_dir():
        file = weights_file(Path(backbone), "model.backbone")
    stated = {key: arguments.pop(key) for key in _INPUT_KEYS if key in arguments}
    if image_size is not None:
        stated["size"] = (image_size, image_size)
    if architecture in OWN:
        if architecture == "flat_pixels" and stated.get("size") is None:
            msg = (
                "model.backbone: flat_pixels needs a size, for example size: [32, 32], "
                "which sets its number of features"
            )
            raise BackboneError(msg)
        model = _own(architecture, arguments)
        defaults = _DEFAULT_INPUT
        if file is not None:
            load_weights(model, file)
    else:
        if image_size is not None and _fixed_size(architecture, source):
            arguments.setdefault("img_size", image_size)
        model = timm_network(
            architecture,
            arguments,
            source,
            file,
            pretrained=isinstance(backbone, str) or file is not None,
        )
        defaults = _default_input(model, arguments)
    config = {"architecture": architecture, **arguments, **defaults, **stated}
    return ImageEncoder(model, json.loads(json.dumps(config))).train()


def _own_encoder(model: nn.Module, weights: Path | None, image_size: int | None) -> ImageEncoder:
    """Wrap the network of an own package."""
    if weights is not None:
        load_weights(model, weights)
    config = {**_DEFAULT_INPUT, **getattr(model, "input_config", {})}
    if image_size is not None:
        config["size"] = (image_size, image_size)
    return ImageEncoder(model, {"architecture": type(model).__name__, **config}).train()


def _parse_backbone(
    backbone: str | Mapping[str, Any],
) -> tuple[str, dict[str, Any], dict[str, Any] | None]:
    """Return the architecture, its arguments, and the `pretrained_cfg` of its weights."""
    if not isinstance(backbone, str):
        arguments = dict(backbone)
        if "architecture" not in arguments:
            msg = "model.backbone: a mapping needs architecture, for example vgg19 or small_resnet"
            raise BackboneError(msg)
        loading = sorted(_LOADING.intersection(arguments))
        if loading:
            msg = f"model.backbone.{loading[0]}: a mapping loads no file; set model.weights"
            raise BackboneError(msg)
        return _checked_name(str(arguments.pop("architecture"))), arguments, None
    if Path(backbone).is_dir():
        saved = _read_config(Path(backbone) / "config.json")
        return _checked_name(str(saved.get("architecture"))), *_saved_arguments(saved)
    if backbone.startswith("hf-hub:"):
        try:
            source, architecture, arguments = timm.models.load_model_config_from_hf(
                backbone.removeprefix("hf-hub:")
            )
        except Exception as error:  # the hub's client raises OSError and its own types
            raise BackboneError(loading_error(backbone, error)) from error
        return _checked_name(architecture), dict(arguments or {}), dict(source)
    return _checked_name(backbone), {}, None


def _saved_arguments(saved: Mapping[str, Any]) -> tuple[dict[str, Any], dict[str, Any]]:
    """Return the constructor's arguments and the `pretrained_cfg` from timm's config.json."""
    source = dict(saved.get("pretrained_cfg") or {})
    if "num_classes" in saved:
        source["num_classes"] = saved["num_classes"]
    return dict(saved.get("model_args") or {}), source


class _SavedConfig(TypedDict, total=False):
    """config.json of a network that timm saved."""

    architecture: str
    model_args: dict[str, Any] | None
    pretrained_cfg: dict[str, Any] | None


def _read_config(path: Path) -> dict[str, Any]:
    advice = "save a network there with timm, or set a timm model name"
    if not path.is_file():
        msg = f"{path.parent.resolve()}: no usable config.json; {advice}"
        raise BackboneError(msg)
    saved: dict[str, Any] = read_json(path, _SavedConfig, advice)
    if "architecture" not in saved:
        msg = f"{path.resolve()} names no architecture; {advice}"
        raise BackboneError(msg)
    return saved


def _checked_name(name: str) -> str:
    """Return the name of a network; raise `BackboneError` if there is no such network."""
    plain, _, tag = name.partition(".")
    if plain in OWN and not tag:
        return name
    if timm.is_model(plain):
        tags = [full.partition(".")[2] for full in timm.list_pretrained(f"{plain}.*")]
        if not tag or tag in tags:
            return name
        known = ", ".join(f"{plain}.{t}" for t in near_names(tag, tags, cutoff=0.2) or tags[:3])
        msg = (
            f"model.backbone={name}: timm has no weights '{tag}' for {plain}; "
            f"it has {known or 'none'}"
        )
        raise BackboneError(msg)
    near = near_names(plain, [*OWN, *timm.list_models()], cutoff=0.5)
    hint = (
        f"; did you mean {' or '.join(near)}?" if near else "; timm.list_models() lists all of them"
    )
    msg = (
        f"model.backbone={name}: no such folder ({Path(name).resolve()}), "
        f"and timm has no model of that name{hint}"
    )
    raise BackboneError(msg)


def _own(architecture: str, arguments: Mapping[str, Any]) -> nn.Module:
    try:
        return OWN[architecture](**arguments)
    except (TypeError, ValueError) as error:
        msg = f"model.backbone: {architecture} cannot be built from these values: {error}"
        raise BackboneError(msg) from error


def _fixed_size(architecture: str, source: Mapping[str, Any] | None) -> bool:
    """Return whether a network has a fixed input size, as with learnt position embeddings."""
    if source is not None:
        return bool(source.get("fixed_input_size"))
    return bool(
        getattr(
            timm.models.get_pretrained_cfg(architecture, allow_unregistered=True),
            "fixed_input_size",
            False,
        )
    )


def _default_input(model: nn.Module, arguments: Mapping[str, Any]) -> dict[str, Any]:
    """Return the size, mean, std and interpolation that the network's own configuration sets."""
    own = cast(Mapping[str, Any], model.pretrained_cfg)
    side = arguments.get("img_size")
    size = (
        own["input_size"][1:] if side is None else (side, side) if isinstance(side, int) else side
    )
    return {"size": list(size), **{key: own[key] for key in ("mean", "std", "interpolation")}}
