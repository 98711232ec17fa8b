"""Weights of image networks: from the hub, a local folder or a file, and what is wrong with them."""

import logging
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import timm
from torch import nn

from lightning_modules.networks.backbones.features import BackboneError
from run_folders.errors import brief

_WEIGHTS = ("model.safetensors", "pytorch_model.bin")
_WEIGHT_SUFFIXES = (".safetensors", ".pth", ".pt", ".bin")
# Of the task that a file's weights were trained for.
_CLASSIFIERS = ("head.", "head_dist.", "fc.", "classifier.", "last_linear.", "pre_logits.")
_DERIVED = ("relative_position_index", "attn_mask", "num_batches_tracked")
# Errors that no hub raises: what was asked for cannot be built.
_OF_THE_CODE = (TypeError, KeyError, AttributeError, AssertionError, RuntimeError)


def weights_file(path: Path, key: str) -> Path:
    """The file of weights that a key of the config names, itself or in a folder; raises `BackboneError` where there is none."""
    found = (
        next((path / name for name in _WEIGHTS if (path / name).is_file()), None)
        if path.is_dir()
        else path
    )
    if found is None or not found.is_file():
        wanted = f"no {' or '.join(_WEIGHTS)} in it" if path.is_dir() else "no such file"
        msg = f"{key}={path}: {wanted} ({path.resolve()})"
        raise BackboneError(msg)
    if found.suffix not in _WEIGHT_SUFFIXES:
        msg = f"{key}={path}: cannot read '{found.suffix}' files; give one of {', '.join(_WEIGHT_SUFFIXES)}"
        raise BackboneError(msg)
    return found


def load_weights(model: nn.Module, file: Path) -> None:
    """Load every weight of a network of our own; raises `BackboneError` where the file does not fit."""
    try:
        model.load_state_dict(timm.models.load_state_dict(str(file), weights_only=True))
    except Exception as error:  # the loaders raise anything from OSError to SafetensorError
        raise BackboneError(not_loaded(str(file), error)) from error


def timm_network(
    architecture: str,
    arguments: Mapping[str, Any],
    source: dict[str, Any] | None,
    file: Path | None,
    *,
    pretrained: bool,
) -> nn.Module:
    """Build a network of timm without its classifier; VGG also without the two wide layers before it.

    Args:
        architecture: Its name, with or without the tag of weights.
        arguments: Of its constructor.
        source: What came with the weights; None is what timm knows.
        file: Of weights, instead of those that belong to the name.
        pretrained: Whether any weights are loaded.

    Returns:
        The network, in train mode.

    Raises:
        BackboneError: If it cannot be built, or the weights do not cover it.
    """
    # Without a source of its own: one that names the hub would go before the file.
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
    except Exception as error:  # constructors and loaders raise anything
        if file is not None or (pretrained and not isinstance(error, _OF_THE_CODE)):
            raise BackboneError(not_loaded(str(file or architecture), error)) from error
        msg = f"model.backbone: {architecture} cannot be built so: {brief(error)}"
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
        msg = f"{file or architecture}: no weights for {_some(random)}, so they would be random; is it of another network?"
        raise BackboneError(msg)
    foreign = [
        name
        for name in report["Unexpected"]
        if not name.startswith(_CLASSIFIERS) and not name.endswith(_DERIVED)
    ]
    if foreign and file is not None:
        msg = f"{file}: {architecture} has no {_some(foreign)}, which the file has; is it of another network?"
        raise BackboneError(msg)
    return model


def _some(names: list[str]) -> str:
    return ", ".join(names[:3]) + (", ..." if len(names) > 3 else "")  # noqa: PLR2004


@contextmanager
def _load_report() -> Iterator[dict[str, list[str]]]:
    """Collect which weights timm misses and which it has no use for; it says so in its log and nowhere else."""
    report: dict[str, list[str]] = {"Missing": [], "Unexpected": []}

    def listen(record: logging.LogRecord) -> bool:
        kind, _, rest = record.getMessage().partition(" keys (")
        if kind in report:
            report[kind].extend(rest.partition(")")[0].split(", "))
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


def not_loaded(backbone: str, error: Exception) -> str:
    """The one line about weights that cannot be had."""
    reason = brief(error)
    if Path(backbone).exists():
        return f"{Path(backbone).resolve()}: no usable weights of this network ({reason})"
    return (
        f"model.backbone={backbone}: the hub gave no weights ({reason}); go online once, set model.weights to a local file, or "
        f"start from random weights with model.backbone={{architecture: {backbone}}}"
    )
