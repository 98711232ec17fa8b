"""Loading and checking weights of image networks, from the hub, a local folder or a file."""

import logging
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import timm
from torch import nn

from lightning_modules.networks.backbones.features import BackboneError
from run_folders.errors import brief, loading_reason
from run_folders.memory import check_archive

_WEIGHTS = ("model.safetensors", "pytorch_model.bin")
_WEIGHT_SUFFIXES = (".safetensors", ".pth", ".pt", ".bin")
# Layers of the task that the weights were trained for; they are not loaded.
_CLASSIFIERS = ("head.", "head_dist.", "fc.", "classifier.", "last_linear.", "pre_logits.")
_DERIVED = ("relative_position_index", "attn_mask", "num_batches_tracked")
# Errors of the constructor, not of the hub: the network cannot be built with these arguments.
_CONSTRUCTOR_ERRORS = (TypeError, KeyError, AttributeError, AssertionError, RuntimeError)


def weights_file(path: Path, key: str) -> Path:
    """Return the file of weights at a path, which may be the file itself or its folder.

    Args:
        path: The file or folder.
        key: Key of the config that has the path.

    Raises:
        BackboneError: If there is no such file, or its type is not supported.
        DamagedFileError: If it unpacks to more than the free memory.
    """
    found = (
        next((path / name for name in _WEIGHTS if (path / name).is_file()), None)
        if path.is_dir()
        else path
    )
    if found is None or not found.is_file():
        problem = f"no {' or '.join(_WEIGHTS)} in it" if path.is_dir() else "no such file"
        msg = f"{key}={path}: {problem} ({path.resolve()})"
        raise BackboneError(msg)
    if found.suffix not in _WEIGHT_SUFFIXES:
        msg = (
            f"{key}={path}: cannot read '{found.suffix}' files; "
            f"give one of {', '.join(_WEIGHT_SUFFIXES)}"
        )
        raise BackboneError(msg)
    check_archive(found, "take the weights from another source")
    return found


def load_weights(model: nn.Module, file: Path) -> None:
    """Load all weights of one of Thaw's own networks.

    Raises:
        BackboneError: If the file cannot be read or does not match the network.
    """
    try:
        model.load_state_dict(timm.models.load_state_dict(str(file), weights_only=True))
    except Exception as error:  # the loaders raise many types, from OSError to SafetensorError
        raise BackboneError(loading_error(str(file), error)) from error


def timm_network(
    architecture: str,
    arguments: Mapping[str, Any],
    source: dict[str, Any] | None,
    file: Path | None,
    *,
    pretrained: bool,
) -> nn.Module:
    """Build a timm network without its classifier.

    VGG is also built without the two wide fully connected layers before the classifier.

    Args:
        architecture: timm's model name, with or without the tag of its weights.
        arguments: Arguments of the constructor.
        source: timm's `pretrained_cfg` that came with the weights; None uses timm's own.
        file: File of weights, instead of timm's pretrained weights.
        pretrained: Whether to load weights.

    Returns:
        The network, in train mode.

    Raises:
        BackboneError: If the network cannot be built, or the weights do not cover it.
    """
    # `source` is cleared, because a source on the hub would take precedence over the file.
    overlay = None if file is None else {"file": str(file), "custom_load": False, "source": ""}
    try:
        with _load_report() as report:
            model = timm.create_model(
                architecture,
                pretrained,
                pretrained_cfg=source,
                pretrained_cfg_overlay=overlay,
                num_classes=0,
                **arguments,
            )
    except Exception as error:  # constructors and loaders raise any exception
        if file is not None or (pretrained and not isinstance(error, _CONSTRUCTOR_ERRORS)):
            raise BackboneError(loading_error(str(file or architecture), error)) from error
        msg = f"model.backbone: {architecture} cannot be built from these values: {brief(error)}"
        raise BackboneError(msg) from error
    if isinstance(model, timm.models.VGG):
        model.register_module("pre_logits", nn.Identity())
    used = model.state_dict()
    random = [
        name
        for name in report["Missing"]
        if name in used and not name.endswith("num_batches_tracked")
    ]
    if random:
        msg = (
            f"{file or architecture}: no weights for {_first_names(random)}, so they would be "
            f"random; check that the weights belong to this network"
        )
        raise BackboneError(msg)
    unexpected = [
        name
        for name in report["Unexpected"]
        if not name.startswith(_CLASSIFIERS) and not name.endswith(_DERIVED)
    ]
    if unexpected and file is not None:
        msg = (
            f"{file}: {architecture} has no {_first_names(unexpected)}, which the file contains; "
            f"check that the weights belong to this network"
        )
        raise BackboneError(msg)
    return model


def _first_names(names: list[str]) -> str:
    return ", ".join(names[:3]) + (", ..." if len(names) > 3 else "")  # noqa: PLR2004


@contextmanager
def _load_report() -> Iterator[dict[str, list[str]]]:
    """Collect the names of missing and unexpected weights, which timm writes only to its log.

    Yields:
        Lists of names under the keys `Missing` and `Unexpected`, filled while the context is open.
    """
    report: dict[str, list[str]] = {"Missing": [], "Unexpected": []}

    def listen(record: logging.LogRecord) -> bool:
        kind, _, names = record.getMessage().partition(" keys (")
        if kind in report:
            report[kind].extend(names.partition(")")[0].split(", "))
        return kind not in report and record.levelno >= logging.WARNING

    logger = logging.getLogger("timm.models._builder")
    level = logger.level
    logger.addFilter(listen)
    logger.setLevel(logging.INFO)
    try:
        yield report
    finally:
        logger.removeFilter(listen)
        logger.setLevel(level)


def loading_error(backbone: str, error: Exception) -> str:
    """Return the error message for weights that cannot be loaded."""
    reason = loading_reason(error)
    if Path(backbone).exists():
        return f"{Path(backbone).resolve()}: no usable weights of this network ({reason})"
    return (
        f"model.backbone={backbone}: the hub returned no weights ({reason}); go online once, "
        f"set model.weights to a local file, or start from random weights with "
        f"model.backbone='{{architecture: {backbone}}}'; HF_HUB_OFFLINE=1 reads only the cache"
    )
