"""All that stored features depend on, as one digest: what agrees in it has the same features."""

import json

import lightning
import timm
import torch
import transformers

from datamodules.stored_features import digest_of_tensors
from lightning_modules.base import Task
from lightning_modules.networks.frozen_prefix import Cut

_FORMAT = 1  # goes up with every change to keys, to files, or to what the code computes


def digest_of_part(cut: Cut, task: Task, trainer: lightning.Trainer) -> str:
    """Of the part that runs: weights, buffers, configuration, the cut, and what its numbers depend on beside them."""
    features = task.network.get_submodule("features")
    tensors = cut.tensors(features)
    device = trainer.strategy.root_device.type
    facts = {
        "format": _FORMAT,
        "configuration": task.backbone_config(),
        "pooling": getattr(features, "pooling", None),
        "cut": cut.layer,
        "modules": repr(features),
        "tensors": list(tensors),
        "precision": str(trainer.precision),
        "float32": torch.get_float32_matmul_precision(),
        "device": [device, torch.cuda.get_device_name() if device == "cuda" else torch.get_num_threads()],
        "versions": [torch.__version__, transformers.__version__, timm.__version__],
    }
    return digest_of_tensors(tensors.values(), json.dumps(facts, sort_keys=True, default=str))
