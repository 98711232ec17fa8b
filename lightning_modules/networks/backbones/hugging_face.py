"""Functions for Hugging Face backbones: configurations, input normalisation, loading errors."""

import logging
from collections.abc import Iterator, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

from transformers import CONFIG_MAPPING, AutoConfig, PretrainedConfig
from transformers.image_processing_utils import BaseImageProcessor
from transformers.models.auto.image_processing_auto import IMAGE_PROCESSOR_MAPPING

from lightning_modules.networks.backbones.features import BackboneError
from lightning_modules.networks.backbones.pixels import check_channel_values
from run_folders.errors import brief, loading_reason, near_names

log = logging.getLogger(__name__)


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
    for key, value in _code_in(settings):
        msg = f"model.backbone.{key}: received {value!r}, which is code; leave it out"
        raise BackboneError(msg)
    for key in settings:
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


def hf_config_of(backbone: str, random_weights: str) -> PretrainedConfig:
    """Load the configuration of a hub name or local folder. Code that it names is never run.

    Args:
        backbone: The hub name or local folder.
        random_weights: See `hf_loading_error`.

    Raises:
        BackboneError: If there is none, or the network needs code that transformers does not have.
    """
    if not Path(backbone).is_dir():
        log.info("backbone: looking for %s in the cache and on the Hugging Face Hub", backbone)
    try:
        _check_code(backbone, PretrainedConfig.get_config_dict(backbone)[0])
        config: PretrainedConfig = AutoConfig.from_pretrained(backbone, trust_remote_code=False)
    except BackboneError:
        raise
    except Exception as error:  # a damaged config.json raises any exception
        raise BackboneError(hf_loading_error(backbone, error, random_weights)) from error
    return config


def _check_code(backbone: str, values: Mapping[str, Any]) -> None:
    """Raise `BackboneError` if a configuration names code, unless transformers has its own."""
    for key, value in _code_in(values):
        if key != "auto_map" or values.get("model_type") not in CONFIG_MAPPING:
            msg = (
                f"{backbone}: {key} in config.json names code ({str(value)[:60]}), and Thaw "
                f"does not run code of a model folder; choose a model type of transformers"
            )
            raise BackboneError(msg)
        log.warning(
            "%s: Thaw does not run code of a model folder, so auto_map in config.json is ignored "
            "and the network is the %s of transformers",
            backbone,
            values["model_type"],
        )


def _code_in(values: Mapping[str, Any]) -> Iterator[tuple[str, Any]]:
    """Yield the keys of a configuration that name code of its folder or of the hub."""
    for key, value in values.items():
        if isinstance(value, Mapping) and key != "auto_map":
            yield from ((f"{key}.{inner}", code) for inner, code in _code_in(value))
        elif key == "auto_map" or (str(key).endswith("implementation") and "/" in str(value)):
            yield key, value


def hf_loading_error(backbone: str, error: Exception, random_weights: str) -> str:
    """Return the error message for a backbone that cannot be loaded.

    Args:
        backbone: The hub name or local folder.
        error: The loader's error.
        random_weights: Overrides that start from random weights, for the advice.
    """
    reason, folder = loading_reason(error), Path(backbone).resolve()
    if folder.is_dir():
        return (
            f"{folder}: no usable backbone in this folder ({reason}); "
            f"write one with save_pretrained"
        )
    return (
        f"model.backbone={backbone}: no such folder ({folder}), and the hub returned none "
        f"({reason}); go online once, set model.backbone to a local folder, or start from random "
        f"weights with {random_weights}; HF_HUB_OFFLINE=1 reads only the cache"
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
