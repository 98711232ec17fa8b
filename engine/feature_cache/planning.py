"""The plan of the feature cache.

The layers of a network that are never trained can run once, and their output be stored. The plan
states which layers these are, where their features are stored, or why they are not.
"""

import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

from lightning.pytorch.strategies import FSDPStrategy
from omegaconf import DictConfig

from datamodules.base import TransferDataModule
from datamodules.batching.stored_features import (
    FeatureInput,
    Layout,
    NotStorableError,
    StoredFeatures,
    digest_of_tensors,
)
from engine.build import RunObjects
from engine.checkpoints import load_checkpoint
from engine.config.errors import ConfigError
from engine.feature_cache.computing import compute_features, layer_output
from engine.feature_cache.key import frozen_part_digest
from engine.feature_cache.store import FeatureStore, StoreError, format_bytes
from lightning_modules.base import Task
from lightning_modules.networks.classifier import Classifier
from lightning_modules.networks.freezing.prefix import Cut, find_cut


class NoCacheError(Exception):
    """Features are not cached; the message is the reason, empty where all layers are trained."""


@dataclass(frozen=True)
class Entry:
    """The cache entry of one split.

    Attributes:
        source: The input of the network.
        layout: The format of the features.
        key: The digest of everything that the features depend on.
        found: True if the features are stored already.
    """

    source: FeatureInput
    layout: Layout
    key: str
    found: bool


@dataclass(frozen=True)
class CachePlan:
    """The plan: which features are cached, or why none are.

    Attributes:
        cut: The cut; the layers before it run once. None where no features are cached.
        entries: Split -> its cache entry.
        reason: The reason why no features are cached; may be empty.
        store: The store of the features; None where no features are cached.
    """

    cut: Cut | None = None
    entries: Mapping[str, Entry] = field(default_factory=dict)
    reason: str = ""
    store: FeatureStore | None = None

    @property
    def bytes(self) -> int:
        """Size of all splits' features in bytes."""
        return sum(entry.layout.bytes for entry in self.entries.values())

    def facts(self) -> dict[str, Any]:
        """Return the plan as plain values for plan.json."""
        if self.cut is None:
            return {"stored": None, "reason": self.reason}
        splits = {
            name: {
                "key": e.key,
                "bytes": e.layout.bytes,
                "views": e.layout.views,
                "found": e.found,
            }
            for name, e in self.entries.items()
        }
        return {"stored": str(self.cut), "bytes": self.bytes, "splits": splits}

    def line(self) -> str:
        """Return a line for the log; empty where no features are cached and there is no reason."""
        if self.cut is None or self.store is None:
            return f"features are not cached: {self.reason}" if self.reason else ""
        views = ", ".join(
            f"{name} with mirror images" for name, e in self.entries.items() if e.layout.views > 1
        )
        new = [name for name, entry in self.entries.items() if not entry.found]
        status = f"to be computed: {', '.join(new)}" if new else "found"
        size = format_bytes(self.bytes) + (f" ({views})" if views else "")
        return f"features of {self.cut} are cached in {self.store.folder}: {size}; {status}"


def plan_cache(
    cfg: DictConfig,
    objects: RunObjects,
    checkpoint: Path | None,
    before: Mapping[str, Any] | None = None,
) -> CachePlan:
    """Decide which layers run once and where their features are stored.

    Only the features of one sample are computed, to find their format.

    Args:
        cfg: The config; `cache` has the mode, the folder and its limit.
        objects: Datamodule, task and trainer. The task loads the checkpoint's weights if there is
            one.
        checkpoint: The checkpoint from which training starts, if any.
        before: The `facts` of the run that is resumed, if any; `auto` then keeps its decision.

    Returns:
        The plan.

    Raises:
        ConfigError: If `cache.features=true` and features cannot be cached.
    """
    wanted = cfg.cache.features
    if wanted is False or not cfg.train:
        return CachePlan()
    if wanted == "auto" and before is not None and before.get("stored") is None:
        return CachePlan(reason=str(before.get("reason", "")))
    choosing = wanted == "auto" and before is None
    try:
        cut = _cut(objects)
        if choosing:
            _check_reads_all(objects)
        if checkpoint is not None:  # the frozen layers keep the checkpoint's weights
            objects.task.load_state_dict(load_checkpoint(checkpoint)["state_dict"])
        store = FeatureStore(Path(cfg.cache.dir), round(cfg.cache.max_gb * 1e9))
        entries = _entries(cut, objects, store, ["train", "val", *(["test"] if cfg.test else [])])
        if choosing:
            _check_pays_off(objects, entries["train"].layout.views)
        store.check_limit({entry.key: entry.layout.bytes for entry in entries.values()})
    except (NoCacheError, NotStorableError, StoreError) as error:
        if wanted is True:
            reason = (
                str(error)
                or "the whole backbone is trained; freeze it, or train only its last layers"
            )
            msg = f"cache.features: received true, but features cannot be cached: {reason}"
            raise ConfigError(msg) from error
        return CachePlan(reason=str(error))
    return CachePlan(cut, entries, "", store)


def _cut(objects: RunObjects) -> Cut:
    """Return where the network is cut.

    Raises:
        NoCacheError: If it cannot be cut.
    """
    task = objects.task
    if not isinstance(task.network, Classifier):
        frozen = any(
            task.freezing.first_epoch(name) is None for name, _ in task.network.named_parameters()
        )
        raise NoCacheError(
            f"{type(task).__name__} has no head that works on features alone" if frozen else ""
        )
    cut = find_cut(task.network, task.freezing)
    if isinstance(cut, str):
        raise NoCacheError(cut)
    if isinstance(objects.trainer.strategy, FSDPStrategy):
        msg = "trainer.strategy=fsdp shards the frozen part too"
        raise NoCacheError(msg)
    return cut


def _check_reads_all(objects: RunObjects) -> None:
    """Check that training reads all samples; caching would compute features of all of them.

    Raises:
        NoCacheError: If a setting of the trainer limits the number of batches.
    """
    trainer: Any = objects.trainer
    limits = [f"limit_{stage}_batches" for stage in ("train", "val", "test")]
    for name in limits:
        limit = getattr(trainer, name)
        if isinstance(limit, int) or limit != 1.0:
            msg = f"trainer.{name}={limit} uses only part of the data"
            raise NoCacheError(msg)
    if trainer.overfit_batches or trainer.fast_dev_run:
        msg = "trainer.overfit_batches and trainer.fast_dev_run use only part of the data"
        raise NoCacheError(msg)


def _check_pays_off(objects: RunObjects, views: int) -> None:
    """Check that training has more epochs than the number of passes that compute the features.

    Stored features make no difference to the decision. The same overrides then result in the same
    metrics, to the last digit.

    Args:
        objects: The run's objects.
        views: The number of views of each training sample; each view takes one pass.

    Raises:
        NoCacheError: If caching does not pay off.
    """
    epochs = _epochs(objects)
    if epochs is not None and epochs <= views:
        training = "1 epoch" if epochs == 1 else f"{epochs} epochs"
        computing = "1 pass" if views == 1 else f"{views} passes"
        msg = (
            f"training has only {training}, and computing the features takes {computing} "
            "over the data"
        )
        raise NoCacheError(msg)


def _epochs(objects: RunObjects) -> int | None:
    """Return the number of epochs of the whole training; None without a limit."""
    trainer = objects.trainer
    ends = [] if trainer.max_epochs in (None, -1) else [int(trainer.max_epochs or 0)]
    if trainer.max_steps > 0:
        ends.append(-(-trainer.max_steps // max(1, len(objects.datamodule.train_dataloader()))))
    return min(ends, default=None)


def _entries(
    cut: Cut, objects: RunObjects, store: FeatureStore, splits: list[str]
) -> dict[str, Entry]:
    part = frozen_part_digest(cut, objects.task, objects.trainer)
    sources = {split: objects.datamodule.feature_input(split) for split in splits}
    output = layer_output(
        cut,
        objects.task,
        objects.trainer,
        objects.datamodule.probe_batch() or _one_sample(sources["val"]),
    )
    entries = {}
    for split, source in sources.items():
        mirrored = split != "train" and getattr(objects.task, "tta_flip", False)
        views = 2 if mirrored else source.views
        lengths = source.lengths if output.per_token else None
        layout = Layout(output.dtype, output.shape, source.samples, views, lengths)
        key = digest_of_tensors([], part, source.sha256, layout.facts())[:32]
        entries[split] = Entry(source, layout, key, key in store)
    return entries


def _one_sample(source: FeatureInput) -> Any:  # noqa: ANN401 - each dataset has its batch type
    """Return a batch of the first sample."""
    return {name: value[:1] for name, value in next(iter(source.loader())).items()}


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
        compute = partial(compute_features, plan.cut, objects, entry.source, split)
        stored[split], _ = plan.store.get(entry.key, entry.layout, compute)
    _read_from_cache(objects.datamodule, objects.task, plan.cut, stored)
    return time.perf_counter() - start


def _read_from_cache(
    datamodule: TransferDataModule[Any], task: Task, cut: Cut, stored: Mapping[str, StoredFeatures]
) -> None:
    assert isinstance(task.network, Classifier)  # noqa: S101 - tells the type checker
    task.network.cut = cut
    datamodule.read_from_cache(stored)
