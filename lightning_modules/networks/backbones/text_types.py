"""Which model types of transformers read texts alone."""

import inspect
from typing import Any

from transformers import MODEL_MAPPING, PretrainedConfig

from lightning_modules.networks.backbones.features import BackboneError

_OTHER_INPUTS = {
    "bbox": "the position of each word on a page",
    "pixel_values": "images",
    "inputs": "inputs of several kinds",
}
_UNUSABLE = {"reformer": "pads all training texts to one fixed length"}


def check_reads_texts(config: PretrainedConfig) -> None:
    """Check that a model type reads texts and nothing else, before its weights are loaded.

    Raises:
        BackboneError: If it does not.
    """
    model_type = config.model_type
    if model_type in _UNUSABLE:
        msg = (
            f"model.backbone: {model_type} {_UNUSABLE[model_type]}, which Thaw does not do; "
            f"choose another model type"
        )
        raise BackboneError(msg)
    network = _network_class(config)
    inputs = list(inspect.signature(network.forward).parameters)[1:]
    other = next((name for name in _OTHER_INPUTS if name in inputs), None)
    if other is None and "input_ids" in inputs:
        return
    name = other or inputs[0]
    what = f"{_OTHER_INPUTS[name]} ({name})" if name in _OTHER_INPUTS else name
    msg = (
        f"model.backbone: {model_type} also reads {what}, and the data has only texts; "
        f"choose a model type for texts alone"
        if "input_ids" in inputs
        else f"model.backbone: {model_type} reads {what} instead of texts; choose a text encoder"
    )
    raise BackboneError(msg)


def _network_class(config: PretrainedConfig) -> Any:  # noqa: ANN401 - a class of transformers
    """Return the class that `AutoModel` builds; it sets the one to build where there are several.

    Raises:
        BackboneError: If transformers has no network for this type alone.
    """
    known: Any = MODEL_MAPPING.get(type(config), None)
    if known is None:
        msg = f"model.backbone: transformers has no network for {config.model_type} alone"
        raise BackboneError(msg)
    if not isinstance(known, tuple):
        return known
    if not config.architectures:  # `AutoModel` fails without them
        config.architectures = [known[0].__name__]
    return known[0]
