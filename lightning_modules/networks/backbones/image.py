"""Build the network of an image classifier, with weights and the description of its input."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, cast

import timm
from torch import nn

from lightning_modules.networks.backbones.features import BackboneError
from lightning_modules.networks.backbones.image_encoder import ImageEncoder
from lightning_modules.networks.backbones.image_names import OWN, parse_backbone
from lightning_modules.networks.backbones.image_weights import (
    load_weights,
    timm_network,
    weights_file,
)
from lightning_modules.networks.tokens.errors import TokenError
from lightning_modules.networks.tokens.fdvit import FDViT
from lightning_modules.networks.tokens.insertion import LearnTokensOptions, learn_tokens
from lightning_modules.networks.tokens.merging import MergedTokens, merge_tokens
from run_folders.signatures.checking import check_arguments

_INPUT_KEYS = ("size", "mean", "std", "interpolation")
_GREY = (0.5, 0.5, 0.5)
_DEFAULT_INPUT = {"size": None, "mean": _GREY, "std": _GREY, "interpolation": "bicubic"}


def image_encoder(
    backbone: str | Mapping[str, Any] | nn.Module,
    weights: str | None,
    image_size: int | None,
    *,
    merged: MergedTokens | None = None,
    learned: LearnTokensOptions | None = None,
    reconstructed: bool = False,
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
        merged: See `merge_tokens`; None and 0 merge none.
        learned: See `learn_tokens`; None learns none.
        reconstructed: Whether to add the decoders of FDViT's reconstruction loss.

    Returns:
        The encoder, in train mode.

    Raises:
        BackboneError: If the backbone does not exist, or its weights are damaged or incomplete.
        TokenError: If the network does not allow merged tokens, learned tokens or the
            reconstruction loss as configured.
    """
    file = None if weights is None else weights_file(Path(weights), "model.weights")
    if isinstance(backbone, nn.Module):
        model, config = _own_network(backbone, file, image_size)
    else:
        model, config = _named_network(backbone, file, image_size)
    new_parts = _with_fewer_tokens(model, merged, learned)
    if reconstructed:
        _add_decoders(model, config["architecture"])
        new_parts.append("decoders")
    return ImageEncoder(model, config, new_parts).train()


def _add_decoders(model: nn.Module, architecture: str) -> None:
    """Add the decoders of the reconstruction loss."""
    if not isinstance(model, FDViT):
        msg = (
            f"model.reconstruction: {architecture} has no decoders; choose fdvit, or set "
            f"model.reconstruction=0"
        )
        raise TokenError(msg)
    try:
        model.add_decoders()
    except TokenError as error:
        msg = f"model.reconstruction: {error}, or set model.reconstruction=0"
        raise TokenError(msg) from error


def _with_fewer_tokens(
    model: nn.Module, merged: MergedTokens | None, learned: LearnTokensOptions | None
) -> list[str]:
    """Merge or learn tokens in a network; returns the names of its new modules."""
    if merged and learned:
        msg = "model.merge_tokens and model.learned_tokens are both set; set only one of them"
        raise TokenError(msg)
    try:
        if merged:
            merge_tokens(model, **(merged if isinstance(merged, dict) else {"merged": merged}))
        return learn_tokens(model, **learned) if learned else []
    except TokenError as error:
        msg = f"model.{'merge_tokens' if merged else 'learned_tokens'}: {error}"
        raise TokenError(msg) from error


def _named_network(
    backbone: str | Mapping[str, Any], file: Path | None, image_size: int | None
) -> tuple[nn.Module, dict[str, Any]]:
    """Build a network by its name or its values; returns it and its configuration."""
    architecture, arguments, source = parse_backbone(backbone)
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
        defaults = {**_DEFAULT_INPUT, **getattr(model, "input_config", {})}
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
    return model, json.loads(json.dumps(config))


def _own_network(
    model: nn.Module, weights: Path | None, image_size: int | None
) -> tuple[nn.Module, dict[str, Any]]:
    """Load weights into the network of an own package; returns it and its configuration."""
    if weights is not None:
        load_weights(model, weights)
    config = {**_DEFAULT_INPUT, **getattr(model, "input_config", {})}
    if image_size is not None:
        config["size"] = (image_size, image_size)
    return model, {"architecture": type(model).__name__, **config}


def _own(architecture: str, arguments: Mapping[str, Any]) -> nn.Module:
    try:
        check_arguments(OWN[architecture], arguments)
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
