"""Image networks as the `features` part of a classifier: any of timm, and two of our own. `B` images, `C` channels."""

import json
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import Any, cast, get_args

import timm
import torch
from torch import Tensor, nn

from datamodules.batches import ImageBatch
from lightning_modules.networks.backbones.features import BackboneError, Features
from lightning_modules.networks.backbones.image_weights import (
    load_weights,
    not_loaded,
    timm_network,
    weights_file,
)
from lightning_modules.networks.backbones.partial_vit import block_list, forward_from, forward_until
from lightning_modules.networks.backbones.pixels import (
    FlatPixels,
    Interpolation,
    PixelInput,
    check_colours,
)
from lightning_modules.networks.backbones.small_resnet import SmallResNet
from run_folders.errors import brief, near_names

OWN: dict[str, type[nn.Module]] = {"small_resnet": SmallResNet, "flat_pixels": FlatPixels}
_INPUT_KEYS = ("size", "mean", "std", "interpolation")
_GREY = (0.5, 0.5, 0.5)
_TRIED = 32  # pixels of the image that a network of no fixed size is tried with
_PIECE = (
    16 * 224**2
)  # pixels that a CPU evaluates together: what a layer gives for them stays in its cache


class ImageEncoder(nn.Module):
    """Stored pixels -> pooled features.

    The network stands in `model`, without its classifier: a layer that timm calls `blocks.11` is
    `features.model.blocks.11`.
    """

    def __init__(self, model: nn.Module, config: Mapping[str, Any]) -> None:
        """Wrap a network.

        Args:
            model: Normalised pixels [B, 3, h, w] -> features [B, C].
            config: What it can be built from again; with size (height and width, or None), mean,
                std and interpolation of its input.
        """
        super().__init__()
        size = _checked_input(config)
        self.input = PixelInput(config["mean"], config["std"], size, config["interpolation"])
        self.config = dict(config)
        self.model = model.to(memory_format=torch.channels_last)
        self.width = self._width(size or (_TRIED, _TRIED))

    def _width(self, size: tuple[int, int]) -> int:
        was_training = self.model.training
        try:
            with torch.no_grad():
                features = self.model.eval()(torch.zeros(1, 3, *size))
        except (RuntimeError, ValueError, AssertionError) as error:
            reason = brief(error)
            msg = (
                f"model.backbone: {self.config['architecture']} cannot read {size[0]} x {size[1]} pixels ({reason}); "
                f"set model.image_size"
            )
            raise BackboneError(msg) from error
        self.model.train(was_training)
        if features.ndim != 2:  # noqa: PLR2004
            msg = f"model.backbone={self.config['architecture']} gives no pooled vector but {tuple(features.shape)}"
            raise BackboneError(msg)
        return int(features.shape[1])

    def forward(self, batch: ImageBatch) -> Features:
        """Encode a batch: [B, C]."""
        return Features(self._in_pieces(self.model, batch))

    @property
    def listed(self) -> str | None:
        """Name in `model` of the list of its layers; None where it cannot be run in two parts."""
        return block_list(self.model)

    def forward_until(self, layer: str, batch: ImageBatch) -> Features:
        """The input of a layer of `model`: [B, N, C] or [B, C, H, W]."""
        return Features(self._in_pieces(partial(forward_until, self.model, layer), batch))

    def forward_from(self, layer: str, state: Features) -> Features:
        """Pooled features [B, C] from the input of a layer."""
        return Features(forward_from(self.model, layer, state.values))

    def prepared(self, stored: Tensor) -> Tensor:
        """The network's input [B, 3, h, w] from stored pixels: resized, normalised, and of the weights' type."""
        pixels: Tensor = self.input(stored)
        return pixels.to(next(self.model.parameters(), pixels).dtype)

    def _in_pieces(self, run: Callable[[Tensor], Tensor], batch: ImageBatch) -> Tensor:
        """Run some images at a time where that is faster and images do not depend on each other."""
        stored = batch["pixel_values"]
        height, width = self.config["size"] or stored.shape[-2:]
        count = max(1, _PIECE // (height * width))
        if self.training or stored.device.type != "cpu" or len(stored) <= count:
            return run(self.prepared(stored))
        return torch.cat([run(self.prepared(some)) for some in torch.split(stored, count)])


def _checked_input(config: Mapping[str, Any]) -> tuple[int, int] | None:
    """Height and width of the input; raises `BackboneError` for what describes none."""
    for key in ("mean", "std"):
        check_colours(key, config[key])
    if config["interpolation"] not in get_args(Interpolation):
        msg = f"model.backbone.interpolation: received {config['interpolation']!r}; choose {', '.join(get_args(Interpolation))}"
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
    backbone: str | Mapping[str, Any], weights: str | None, image_size: int | None
) -> ImageEncoder:
    """Build a network in float32.

    Args:
        backbone: A name that timm knows, with or without the tag of its weights, or
            `hf-hub:owner/name`; a local folder with config.json and model.safetensors, as timm
            saves it; or a mapping with `architecture` and that network's own arguments, for random
            weights. The mapping may also say size, mean, std and interpolation of the input.
        weights: A local file of weights (.safetensors, or .pth that holds tensors only), or a
            folder with one; None takes those that belong to the backbone.
        image_size: Side of the input in pixels; None takes what the weights were trained with.

    Returns:
        The encoder, in train mode.

    Raises:
        BackboneError: If there is no such backbone, its weights are damaged or do not cover all of
            it.
    """
    architecture, arguments, source = _described(backbone)
    arguments.pop("num_classes", None)  # of the task that the weights were saved with
    file = None if weights is None else weights_file(Path(weights), "model.weights")
    if isinstance(backbone, str) and file is None and Path(backbone).is_dir():
        file = weights_file(Path(backbone), "model.backbone")
    stated = {key: arguments.pop(key) for key in _INPUT_KEYS if key in arguments}
    if image_size is not None:
        stated["size"] = (image_size, image_size)
    if architecture in OWN:
        if architecture == "flat_pixels" and stated.get("size") is None:
            msg = "model.backbone: flat_pixels needs a size, for example size: [32, 32]; its width depends on it"
            raise BackboneError(msg)
        model, standard = (
            _own(architecture, arguments),
            {"size": None, "mean": _GREY, "std": _GREY, "interpolation": "bicubic"},
        )
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
        standard = _standard_input(model, arguments)
    config = {"architecture": architecture, **arguments, **standard, **stated}
    return ImageEncoder(model, json.loads(json.dumps(config))).train()


def _described(
    backbone: str | Mapping[str, Any],
) -> tuple[str, dict[str, Any], dict[str, Any] | None]:
    """Architecture, its arguments, and what came with its weights."""
    if not isinstance(backbone, str):
        rest = dict(backbone)
        if "architecture" not in rest:
            msg = "model.backbone: a mapping needs architecture, for example vgg19 or small_resnet"
            raise BackboneError(msg)
        return _known(str(rest.pop("architecture"))), rest, None
    if Path(backbone).is_dir():
        described = _json(Path(backbone) / "config.json")
        return _known(str(described.get("architecture"))), *_parts(described)
    if backbone.startswith("hf-hub:"):
        try:
            source, architecture, arguments = timm.models.load_model_config_from_hf(
                backbone.removeprefix("hf-hub:")
            )
        except Exception as error:  # the hub's client raises anything from OSError to its own kinds
            raise BackboneError(not_loaded(backbone, error)) from error
        return _known(architecture), dict(arguments or {}), dict(source)
    return _known(backbone), {}, None


def _parts(described: Mapping[str, Any]) -> tuple[dict[str, Any], dict[str, Any]]:
    source = dict(described.get("pretrained_cfg") or {})
    if "num_classes" in described:
        source["num_classes"] = described["num_classes"]
    return dict(described.get("model_args") or {}), source


def _json(path: Path) -> dict[str, Any]:
    try:
        described = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        msg = f"{path.parent.resolve()}: no usable config.json ({error}); save a network there with timm, or name one it knows"
        raise BackboneError(msg) from error
    if not isinstance(described, dict) or not isinstance(described.get("architecture"), str):
        msg = f"{path.resolve()} names no architecture; save a network there with timm, or name one it knows"
        raise BackboneError(msg)
    return described


def _known(name: str) -> str:
    """The name, if it is that of a network."""
    plain, _, tag = name.partition(".")
    if plain in OWN and not tag:
        return name
    if timm.is_model(plain):
        tags = [full.partition(".")[2] for full in timm.list_pretrained(f"{plain}.*")]
        if not tag or tag in tags:
            return name
        known = ", ".join(f"{plain}.{t}" for t in near_names(tag, tags, cutoff=0.2) or tags[:3])
        msg = f"model.backbone={name}: timm knows no weights '{tag}' of {plain}; it knows {known or 'none'}"
        raise BackboneError(msg)
    near = near_names(plain, [*OWN, *timm.list_models()], cutoff=0.5)
    hint = (
        f"; did you mean {' or '.join(near)}?"
        if near
        else "; timm.list_models() lists those that it knows"
    )
    msg = f"model.backbone={name}: no such folder ({Path(name).resolve()}), and timm knows no network of that name{hint}"
    raise BackboneError(msg)


def _own(architecture: str, arguments: Mapping[str, Any]) -> nn.Module:
    try:
        return OWN[architecture](**arguments)
    except (TypeError, ValueError) as error:
        msg = f"model.backbone: {architecture} cannot be built so: {error}"
        raise BackboneError(msg) from error


def _fixed_size(architecture: str, source: Mapping[str, Any] | None) -> bool:
    """Whether a network is built for one size of image, like those with learnt positions."""
    if source is not None:
        return bool(source.get("fixed_input_size"))
    return bool(
        getattr(
            timm.models.get_pretrained_cfg(architecture, allow_unregistered=True),
            "fixed_input_size",
            False,
        )
    )


def _standard_input(model: nn.Module, arguments: Mapping[str, Any]) -> dict[str, Any]:
    """What the network's own configuration says of its input."""
    own = cast(Mapping[str, Any], model.pretrained_cfg)
    side = arguments.get("img_size")
    size = (
        own["input_size"][1:] if side is None else (side, side) if isinstance(side, int) else side
    )
    return {"size": list(size), **{key: own[key] for key in ("mean", "std", "interpolation")}}
