"""Imports all that a run, a script or a sweep needs, in the process that others are forked from."""

import gc
import importlib
import pkgutil
from contextlib import suppress

import torch

import train  # noqa: F401
from reports import plots
from tests.blank_plots import replace_plots

# Modules that product code imports only where it needs them, and packages to import completely.
NAMES = (
    "matplotlib.backends.backend_agg",
    "optuna",
    "pyarrow.dataset",
    "pyarrow.parquet",
    "sklearn.ensemble",
    "timm",
    "torch.distributed.tensor",
    "torchvision.transforms.v2",
    "transformers.models.auto.modeling_auto",
    "transformers.models.bert.modeling_bert",
)
PACKAGES = ("engine", "datamodules", "lightning_modules", "hydra_plugins")

for package in PACKAGES:
    for module in pkgutil.walk_packages(importlib.import_module(package).__path__, f"{package}."):
        with suppress(ImportError):  # the module needs an extra that is not installed
            importlib.import_module(module.name)
for name in NAMES:
    with suppress(ImportError):
        importlib.import_module(name)
torch.set_num_threads(1)
replace_plots(plots)
gc.collect()
gc.freeze()  # so that forks share these objects and do not copy them
