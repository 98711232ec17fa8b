"""Functions for Hugging Face backbones: configurations, input normalisation, loading errors."""

from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

from transformers import AutoConfig, PretrainedConfig
from transformers.image_processing_utils import BaseImageProcessor
from transformers.models.auto.image_processing_auto import IMAGE_PROCESSOR_MAPPING

from lightning_modules.networks.backbones.features import BackboneError
from lightning_modules.networks.backbones.pixels import check_channel_values
from run_folders.errors import brief, loading_reason, near_names


def hf_config(values: Mapping[str, Any]) -> PretrainedConfig:
    """Build a configuration from its values.

    Args:
        values: `model_type`, and keys of the configuration of that model type.

    Raises:
        BackboneError: If the model type is unknown, or its configuration does not have a key or
            rejects a value.
    """
    if not isinstance(values.get("model_type"), str):
        msg = "model.backbone: a mapping needs model_type, for example bert"
        raise BackboneError(msg)
    model_type = values["model_type"]
    settings = {key: value for key, value in values.items() if key != "model_type"}
    try:
        known = AutoConfig.for_model(model_type)
    except ValueError as error:
        msg = f"model.backbone.model_type: transformers has no model type '{model_type}'"
        raise BackboneError(msg) from error
    names = sorted(known.to_dict())
    for key in settings:
        # An implementation such as `owner/kernel`, and `auto_map`, are code on the hub.
        if key == "auto_map" or (key.endswith("implementation") and "/" in str(settings[key])):
            msg = f"model.backbone.{key}: received {settings[key]!r}, which is code; leave it out"
            raise BackboneError(msg)
        if key not in names and not hasattr(known, key):
            near = ", ".join(near_names(key, names)) or "see the configuration's documentation"
            msg = (
                f"model.backbone.{key}: unknown key of a {model_type} configuration; "
                f"nearest: {near}"
            )
            raise BackboneError(msg)
    try:
        return AutoConfig.for_model(model_type, **settings)
    except Exception as error:  # configurations check their values and raise any exception
        msg = f"model.backbone: invalid {model_type} configuration: {brief(error)}"
        raise BackboneError(msg) from error


def hf_loading_error(backbone: str, error: Exception) -> str:
    """Return the error message for a backbone that cannot be loaded."""
    reason, folder = loading_reason(error), Path(backbone).resolve()
    if folder.is_dir():
        return (
            f"{folder}: no usable backbone in this folder ({reason}); "
            f"write one with save_pretrained"
        )
    return (
        f"model.backbone={backbone}: no such folder ({folder}), and the hub returned none "
        f"({reason}); go online once, or set model.backbone to a local folder"
    )


def hf_normalization(
    config: PretrainedConfig, backbone: str | None, stated: Mapping[str, Any]
) -> tuple[list[float], list[float]]:
    """Return the input normalisation that an image network expects.

    Args:
        config: The network's configuration.
        backbone: Hub name or folder of the weights; None for random weights.
        stated: Values set by the user under the keys `mean` and `std`, 0..1.

    Returns:
        Mean and standard deviation of red, green and blue: the user's values, else those of the
        weights, else the defaults of the model type.

    Raises:
        BackboneError: If a value is not three numbers, or the network expects BGR channel order.
    """
    values: dict[str, Any] = {}
    processors: Any = IMAGE_PROCESSOR_MAPPING.get(type(config), {})
    for processor in processors.values() if isinstance(processors, dict) else ():
        values = {
            name: getattr(processor, name, None)
            for name in ("image_mean", "image_std", "do_normalize", "do_flip_channel_order")
        }
    if backbone is not None:
        # A folder without an image processor raises OSError; the model type's defaults apply.
        with suppress(OSError):
            values |= BaseImageProcessor.get_image_processor_dict(backbone)[0]
    if values.get("do_flip_channel_order"):
        msg = (
            f"model.backbone: {config.model_type} expects BGR channel order, "
            f"which is not supported; choose another network"
        )
        raise BackboneError(msg)
    identity = [0.0] * 3, [1.0] * 3
    mean, std = (
        (values.get("image_mean"), values.get("image_std"))
        if values.get("do_normalize")
        else identity
    )
    mean, std = stated.get("mean", mean or identity[0]), stated.get("std", std or identity[1])
    for key, value in (("mean", mean), ("std", std)):
        check_channel_values(key, value)
    return list(mean), list(std)
