"""Image networks as the `features` part of a classifier: any of timm, and two of our own. `B` images, `C` channels."""

import json
import logging
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from difflib import get_close_matches
from pathlib import Path
from typing import Any, cast

import timm
import torch
from torch import nn

from datamodules.batches import ImageBatch
from lightning_modules.networks.features import BackboneError, Features
from lightning_modules.networks.pixels import FlatPixels, PixelInput
from lightning_modules.networks.small_resnet import SmallResNet

OWN: dict[str, type[nn.Module]] = {"small_resnet": SmallResNet, "flat_pixels": FlatPixels}
_INPUT_KEYS = ("size", "mean", "std", "interpolation")
_WEIGHTS = ("model.safetensors", "pytorch_model.bin")
_WEIGHT_SUFFIXES = (".safetensors", ".pth", ".pt", ".bin")
_GREY = (0.5, 0.5, 0.5)
_TRIED = 32  # pixels of the image that a network of no fixed size is tried with


class ImageEncoder(nn.Module):
    """Stored pixels -> pooled features.

    The network stands in `model`, without its classifier: a layer that timm calls `blocks.11` is `features.model.blocks.11`.
    """

    def __init__(self, model: nn.Module, config: Mapping[str, Any]) -> None:
        """Wrap a network.

        Args:
            model: Normalised pixels [B, 3, h, w] -> features [B, C].
            config: What it can be built from again; with size (height and width, or None), mean, std and interpolation of
                its input.
        """
        super().__init__()
        size = None if config["size"] is None else (int(config["size"][0]), int(config["size"][1]))
        self.input = PixelInput(config["mean"], config["std"], size, config["interpolation"])
        self.model = cast(nn.Module, model.to(memory_format=torch.channels_last))  # type: ignore[call-overload]
        self.config = dict(config)
        self.width = self._width(size or (_TRIED, _TRIED))

    def _width(self, size: tuple[int, int]) -> int:
        was_training = self.model.training
        with torch.no_grad():
            features = self.model.eval()(torch.zeros(1, 3, *size))
        self.model.train(was_training)
        if features.ndim != 2:  # noqa: PLR2004
            msg = f"model.backbone={self.config['architecture']} gives no pooled vector but {tuple(features.shape)}"
            raise BackboneError(msg)
        return int(features.shape[1])

    def forward(self, batch: ImageBatch) -> Features:
        """Encode a batch: [B, C]."""
        return Features(self.model(self.input(batch["pixel_values"])))


def image_encoder(backbone: str | Mapping[str, Any], weights: str | None, image_size: int | None) -> ImageEncoder:
    """Build a network in float32.

    Args:
        backbone: A name that timm knows, with or without the tag of its weights, or `hf-hub:owner/name`; a local folder with
            config.json and model.safetensors, as timm saves it; or a mapping with `architecture` and that network's own
            arguments, for random weights. The mapping may also say size, mean, std and interpolation of the input.
        weights: A local file of weights (.safetensors, or .pth that holds tensors only), or a folder with one; None takes
            those that belong to the backbone.
        image_size: Side of the input in pixels; None takes what the weights were trained with.

    Returns:
        The encoder, in train mode.

    Raises:
        BackboneError: If there is no such backbone, its weights are damaged or do not cover all of it.
    """
    architecture, arguments, source = _described(backbone)
    arguments.pop("num_classes", None)  # of the task that the weights were saved with
    file = None if weights is None else _weights_file(Path(weights), "model.weights")
    if isinstance(backbone, str) and file is None and Path(backbone).is_dir():
        file = _weights_file(Path(backbone), "model.backbone")
    stated = {key: arguments.pop(key) for key in _INPUT_KEYS if key in arguments}
    if image_size is not None:
        stated["size"] = (image_size, image_size)
    if architecture in OWN:
        if architecture == "flat_pixels" and stated.get("size") is None:
            msg = "model.backbone: flat_pixels needs a size, for example size: [32, 32]; its width depends on it"
            raise BackboneError(msg)
        model, standard = _own(architecture, arguments), {"size": None, "mean": _GREY, "std": _GREY, "interpolation": "bicubic"}
        if file is not None:
            _load_own(model, file)
    else:
        if image_size is not None and _fixed_size(architecture, source):
            arguments.setdefault("img_size", image_size)
        model = _timm(architecture, arguments, source, file, pretrained=isinstance(backbone, str) or file is not None)
        standard = _standard_input(model, arguments)
    config = {"architecture": architecture, **arguments, **standard, **stated}
    return ImageEncoder(model, json.loads(json.dumps(config))).train()


def _described(backbone: str | Mapping[str, Any]) -> tuple[str, dict[str, Any], dict[str, Any] | None]:
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
            source, architecture, arguments = timm.models.load_model_config_from_hf(backbone.removeprefix("hf-hub:"))
        except Exception as error:  # the hub's client raises anything from OSError to its own kinds
            raise BackboneError(_not_loaded(backbone, error)) from error
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
    plain = name.partition(".")[0]
    if plain in OWN or timm.is_model(plain):
        return name
    near = get_close_matches(plain, [*OWN, *timm.list_models()], n=3, cutoff=0.5)
    hint = f"; did you mean {' or '.join(near)}?" if near else "; timm.list_models() lists those that it knows"
    msg = f"model.backbone={name}: no such folder ({Path(name).resolve()}), and timm knows no network of that name{hint}"
    raise BackboneError(msg)


def _weights_file(path: Path, key: str) -> Path:
    found = next((path / name for name in _WEIGHTS if (path / name).is_file()), None) if path.is_dir() else path
    if found is None or not found.is_file():
        wanted = f"no {' or '.join(_WEIGHTS)} in it" if path.is_dir() else "no such file"
        msg = f"{key}={path}: {wanted} ({path.resolve()})"
        raise BackboneError(msg)
    if found.suffix not in _WEIGHT_SUFFIXES:
        msg = f"{key}={path}: cannot read '{found.suffix}' files; give one of {', '.join(_WEIGHT_SUFFIXES)}"
        raise BackboneError(msg)
    return found


def _own(architecture: str, arguments: Mapping[str, Any]) -> nn.Module:
    try:
        return OWN[architecture](**arguments)
    except (TypeError, ValueError) as error:
        msg = f"model.backbone: {architecture} cannot be built so: {error}"
        raise BackboneError(msg) from error


def _load_own(model: nn.Module, file: Path) -> None:
    try:
        model.load_state_dict(timm.models.load_state_dict(str(file), weights_only=True))
    except Exception as error:  # the loaders raise anything from OSError to SafetensorError
        raise BackboneError(_not_loaded(str(file), error)) from error


def _fixed_size(architecture: str, source: Mapping[str, Any] | None) -> bool:
    """Whether a network is built for one size of image, like those with learnt positions."""
    if source is not None:
        return bool(source.get("fixed_input_size"))
    return bool(getattr(timm.models.get_pretrained_cfg(architecture, allow_unregistered=True), "fixed_input_size", False))


def _timm(
    architecture: str, arguments: Mapping[str, Any], source: dict[str, Any] | None, file: Path | None, *, pretrained: bool
) -> nn.Module:
    """Build a network of timm without its classifier; VGG also without the two wide layers before it."""
    overlay = None if file is None else {"file": str(file), "custom_load": False}
    try:
        with _missing_keys() as missing:
            model = timm.create_model(
                architecture, pretrained, pretrained_cfg=source, pretrained_cfg_overlay=overlay, num_classes=0, **arguments
            )
    except Exception as error:  # constructors and loaders raise anything
        if not pretrained:
            msg = f"model.backbone: {architecture} cannot be built so: {' '.join(str(error).split())[:200]}"
            raise BackboneError(msg) from error
        raise BackboneError(_not_loaded(str(file or architecture), error)) from error
    if isinstance(model, timm.models.VGG):
        model.pre_logits = nn.Identity()
    used = model.state_dict()
    random = [name for name in missing if name in used and not name.endswith("num_batches_tracked")]
    if random:
        what = ", ".join(random[:3]) + (", ..." if len(random) > 3 else "")  # noqa: PLR2004
        msg = f"{file or architecture}: no weights for {what}, so they would be random; is it of another network?"
        raise BackboneError(msg)
    return model


@contextmanager
def _missing_keys() -> Iterator[list[str]]:
    """Collect the names of weights that timm did not find; it says so in its log and nowhere else."""
    missing: list[str] = []

    class Listener(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            text = record.getMessage()
            if text.startswith("Missing keys ("):
                missing.extend(text.removeprefix("Missing keys (").partition(")")[0].split(", "))

    logger = logging.getLogger("timm.models._builder")
    listener, level, passes_on = Listener(), logger.level, logger.propagate
    logger.addHandler(listener)
    logger.setLevel(logging.INFO)
    logger.propagate = False
    try:
        yield missing
    finally:
        logger.removeHandler(listener)
        logger.setLevel(level)
        logger.propagate = passes_on


def _standard_input(model: nn.Module, arguments: Mapping[str, Any]) -> dict[str, Any]:
    """What the network's own configuration says of its input."""
    own = cast(Mapping[str, Any], model.pretrained_cfg)
    side = arguments.get("img_size")
    size = own["input_size"][1:] if side is None else (side, side) if isinstance(side, int) else side
    return {"size": list(size), **{key: own[key] for key in ("mean", "std", "interpolation")}}


def _not_loaded(backbone: str, error: Exception) -> str:
    reason = " ".join(str(error).split())[:200] or type(error).__name__
    if Path(backbone).exists():
        return f"{Path(backbone).resolve()}: no usable weights of this network ({reason})"
    return (
        f"model.backbone={backbone}: the hub gave no weights ({reason}); go online once, set model.weights to a local file, or "
        f"start from random weights with model.backbone={{architecture: {backbone}}}"
    )
