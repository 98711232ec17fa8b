"""What all backbones of Hugging Face share: configurations from plain values, and the error of one that cannot be had."""

from collections.abc import Mapping
from difflib import get_close_matches
from pathlib import Path
from typing import Any

from transformers import AutoConfig, PretrainedConfig

from lightning_modules.networks.features import BackboneError


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
            near = ", ".join(get_close_matches(key, names, n=3)) or "see the configuration's documentation"
            msg = f"model.backbone.{key}: unknown key of a {values['model_type']} configuration; nearest: {near}"
            raise BackboneError(msg)
    try:
        return AutoConfig.for_model(values["model_type"], **rest)
    except Exception as error:  # configurations check their values and raise anything
        msg = f"model.backbone: no such {values['model_type']} configuration: {' '.join(str(error).split())[:200]}"
        raise BackboneError(msg) from error


def hf_not_loaded(backbone: str, error: Exception) -> str:
    """The one line about a backbone that cannot be had."""
    reason = " ".join(str(error).split())[:200] or type(error).__name__
    if Path(backbone).is_dir():
        return f"{Path(backbone).resolve()}: no usable backbone in this folder ({reason}); write one with save_pretrained"
    return (
        f"model.backbone={backbone}: no such folder ({Path(backbone).resolve()}), and the hub gave none ({reason}); "
        f"go online once, or set model.backbone to a local folder"
    )
