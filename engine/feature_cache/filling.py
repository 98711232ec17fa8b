"""Find or compute the planned features, and read them in place of the samples."""

import time
from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any

from datamodules.base import TransferDataModule
from datamodules.batching.stored_features import StoredFeatures
from engine.build import RunObjects
from engine.feature_cache.cache_plan import CachePlan
from engine.feature_cache.computing import compute_features, outputs_at
from lightning_modules.base import Task
from lightning_modules.networks.classifier import Classifier
from lightning_modules.networks.freezing.prefix import Cut


def fill_cache(plan: CachePlan, objects: RunObjects) -> float | None:
    """Find or compute the planned features, and make the datamodule read them.

    Args:
        plan: The plan; see `plan_cache`.
        objects: The run's objects. Afterwards the datamodule returns `FeatureBatch`es, and the
            network takes them.

    Returns:
        The time in seconds; None where no features are cached.

    Raises:
        StoreError: If the features cannot be stored. The datamodule and the network are then
            unchanged.
    """
    if plan.cut is None or plan.store is None:
        return None
    start = time.perf_counter()
    stored: dict[str, StoredFeatures] = {}
    for split, entry in plan.entries.items():
        outputs = partial(outputs_at, {entry.key: plan.cut}, objects.task)
        name = f"features of {split}"
        compute = partial(compute_features, outputs, objects, entry.source, name)
        stored |= {split: plan.store.get_all({entry.key: entry.layout}, compute)[0][entry.key]}
    _read_from_cache(objects.datamodule, objects.task, plan.cut, stored)
    return time.perf_counter() - start


def fill_together(plans: Sequence[CachePlan], objects: RunObjects) -> float:
    """Find or compute the features of several plans in one pass, and return the seconds.

    The plans differ only by their cuts. The datamodule goes on reading samples.

    Raises:
        StoreError: If the features cannot be stored.
    """
    start = time.perf_counter()
    cached = [plan for plan in plans if plan.cut is not None]
    for split in cached[0].entries if cached else ():
        entries = {plan.entries[split].key: plan for plan in cached}
        cuts = {key: plan.cut or Cut() for key, plan in entries.items()}
        layouts = {key: plan.entries[split].layout for key, plan in entries.items()}
        source = cached[0].entries[split].source
        outputs = partial(outputs_at, cuts, objects.task)
        compute = partial(compute_features, outputs, objects, source, f"features of {split}")
        assert cached[0].store is not None  # noqa: S101 - tells the type checker
        cached[0].store.get_all(layouts, compute)
    return time.perf_counter() - start


def _read_from_cache(
    datamodule: TransferDataModule[Any], task: Task, cut: Cut, stored: Mapping[str, StoredFeatures]
) -> None:
    assert isinstance(task.network, Classifier)  # noqa: S101 - tells the type checker
    task.network.cut = cut
    datamodule.read_from_cache(stored)
