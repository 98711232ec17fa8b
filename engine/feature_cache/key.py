"""The key of stored features: one digest of everything that the features depend on."""

import json
from functools import cache
from importlib.metadata import version
from pathlib import Path
from typing import Any

import lightning
import torch
from torch import nn

import datamodules
from datamodules.batching.stored_features import digest_of_tensors
from engine.config.precision import bfloat16_units
from engine.feature_cache import computing as feature_computing
from lightning_modules import networks
from lightning_modules.base import Task
from lightning_modules.networks.backbones.image_encoder import ImageEncoder
from lightning_modules.networks.freezing.prefix import Cut
from run_folders.own_packages import own_package_folders


@cache
def code_digest() -> str:
    """Return the digest of the source code that computes features.

    Features of another version of the code are therefore computed again.
    """
    files = [
        path
        for package in (datamodules, networks)
        for path in sorted(Path(package.__path__[0]).rglob("*.py"))
    ]
    files.append(Path(feature_computing.__file__))
    for folder in own_package_folders():  # a backbone or dataset may be an own one
        files += sorted(folder.rglob("*.py"))
    return digest_of_tensors([], [path.read_bytes() for path in files])


def _processor() -> list[object]:
    """Return the properties of the CPU that affect the last digits of matrix products."""
    return [torch.get_num_threads(), torch.backends.cpu.get_cpu_capability(), bfloat16_units()]


def plain_attributes(network: nn.Module) -> list[dict[str, Any]]:
    """Return the plain attributes of all modules: an own backbone has no configuration."""
    plain = (bool, int, float, str, tuple, list)
    return [
        {
            name: value
            for name, value in vars(module).items()
            if isinstance(value, plain) and name != "training"
        }
        for module in network.modules()
    ]


def frozen_part_digest(cut: Cut, task: Task, trainer: lightning.Trainer) -> str:
    """Return the digest of the frozen part of a network.

    It covers weights, buffers, configuration, the cut, code, precision, device and versions.
    """
    features = task.features
    tensors = cut.tensors(features)
    device = trainer.strategy.root_device.type
    facts = {
        "code": code_digest(),
        "configuration": task.backbone_config(),
        "pooling": getattr(features, "pooling", None),
        "own": [] if task.backbone_config() else plain_attributes(task.backbone),
        "input": dict(features.config) if isinstance(features, ImageEncoder) else None,
        "cut": cut.layer,
        "modules": repr(features),
        "tensors": list(tensors),
        "precision": str(trainer.precision),
        "float32": torch.get_float32_matmul_precision(),
        "device": [device, *([torch.cuda.get_device_name()] if device == "cuda" else _processor())],
        "deterministic": torch.are_deterministic_algorithms_enabled(),
        "versions": [torch.__version__, *map(version, ("transformers", "timm"))],
    }
    return digest_of_tensors(tensors.values(), json.dumps(facts, sort_keys=True, default=str))
