"""What backbones of Hugging Face share: configurations from plain values, the input of images, the error of a missing one."""

from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

from transformers import AutoConfig, PretrainedConfig
from transformers.image_processing_utils import BaseImageProcessor
from transformers.models.auto.image_processing_auto import IMAGE_PROCESSOR_MAPPING

from lightning_modules.networks.backbones.features import BackboneError
from lightning_modules.networks.backbones.pixels import check_colours
from run_folders.errors import brief, near_names


def hf_config(values: Mapping[str, Any]) -> PretrainedConfig:
    """A configuration from its values.

    Args:
        values: With `model_type`; the rest are keys of that kind of configuration.

    Raises:
        BackboneError: If there is no such kind, or it has no such key or value.
    """
    if "model_type" not in values:
        msg = "model.backbone: a mapping needs model_type, for example bert"
        raise BackboneError(msg)
    rest = {key: value for key, value in values.items() if key != "model_type"}
    try:
        known = AutoConfig.for_model(values["model_type"])
    except ValueError as error:
        msg = f"model.backbone.model_type: transformers knows no '{values['model_type']}'"
        raise BackboneError(msg) from error
    names = sorted(known.to_dict())
    for key in rest:
        if key not in names and not hasattr(known, key):
            near = ", ".join(near_names(key, names)) or "see the configuration's documentation"
            msg = f"model.backbone.{key}: unknown key of a {values['model_type']} configuration; nearest: {near}"
            raise BackboneError(msg)
    try:
        return AutoConfig.for_model(values["model_type"], **rest)
    except Exception as error:  # configurations check their values and raise anything
        msg = f"model.backbone: no such {values['model_type']} configuration: {brief(error)}"
        raise BackboneError(msg) from error


def hf_not_loaded(backbone: str, error: Exception) -> str:
    """The one line about a backbone that cannot be had."""
    reason = brief(error)
    if Path(backbone).is_dir():
        return f"{Path(backbone).resolve()}: no usable backbone in this folder ({reason}); write one with save_pretrained"
    return (
        f"model.backbone={backbone}: no such folder ({Path(backbone).resolve()}), and the hub gave none ({reason}); "
        f"go online once, or set model.backbone to a local folder"
    )


def hf_input(
    config: PretrainedConfig, backbone: str | None, stated: Mapping[str, Any]
) -> tuple[list[float], list[float]]:
    """What a network of images expects of its input.

    Args:
        config: The network's.
        backbone: Where its weights come from; None where they are random.
        stated: Mean and std that the user gives, 0..1.

    Returns:
        Mean and standard deviation of red, green and blue: as stated, else as the weights were
        trained, else as networks of this kind are.

    Raises:
        BackboneError: If that is no three numbers, or the network reads other channels.
    """
    values: dict[str, Any] = {}
    kinds: Any = IMAGE_PROCESSOR_MAPPING.get(type(config), {})
    for kind in kinds.values() if isinstance(kinds, dict) else ():
        values = {
            name: getattr(kind, name, None)
            for name in ("image_mean", "image_std", "do_normalize", "do_flip_channel_order")
        }
    if backbone is not None:
        with suppress(
            OSError
        ):  # a folder that holds a network alone: what its kind is trained with
            values |= BaseImageProcessor.get_image_processor_dict(backbone)[0]
    if values.get("do_flip_channel_order"):
        msg = f"model.backbone: a {config.model_type} reads blue before red, which is not supported; take another network"
        raise BackboneError(msg)
    plain = [0.0] * 3, [1.0] * 3
    mean, std = (
        (values.get("image_mean"), values.get("image_std")) if values.get("do_normalize") else plain
    )
    mean, std = stated.get("mean", mean or plain[0]), stated.get("std", std or plain[1])
    for key, found in (("mean", mean), ("std", std)):
        check_colours(key, found)
    return list(mean), list(std)
