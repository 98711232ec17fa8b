"""What never trains runs once: which part of a network that is, whether it pays, and where its features are kept."""

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
from engine.config.validation import ConfigError
from engine.feature_cache.computing import compute_features, layer_output
from engine.feature_cache.key import digest_of_part
from engine.feature_cache.store import FeatureStore, StoreError, gigabytes
from lightning_modules.base import Task
from lightning_modules.networks.classifier import Classifier
from lightning_modules.networks.freezing.prefix import Cut, find_cut


class NoCacheError(Exception):
    """Features are not stored; the message is the reason, empty where nothing is frozen for good."""


@dataclass(frozen=True)
class Entry:
    """The features of one split.

    Attributes:
        source: What the network reads.
        layout: What it gives.
        key: Of all that the features depend on.
        found: Whether they are stored already.
    """

    source: FeatureInput
    layout: Layout
    key: str
    found: bool


@dataclass(frozen=True)
class CachePlan:
    """What is done about features.

    Attributes:
        cut: What comes before it is computed once; None where nothing is stored.
        entries: Split -> its features.
        reason: Why nothing is stored.
        store: Where.
    """

    cut: Cut | None = None
    entries: Mapping[str, Entry] = field(default_factory=dict)
    reason: str = ""
    store: FeatureStore | None = None

    @property
    def bytes(self) -> int:
        """Size of all splits' features."""
        return sum(entry.layout.bytes for entry in self.entries.values())

    def facts(self) -> dict[str, Any]:
        """Plain values for plan.json."""
        if self.cut is None:
            return {"stored": None, "reason": self.reason}
        splits = {
            name: {
                "key": e.key,
                "bytes": e.layout.bytes,
                "states": e.layout.views,
                "found": e.found,
            }
            for name, e in self.entries.items()
        }
        return {"stored": str(self.cut), "bytes": self.bytes, "splits": splits}

    def line(self) -> str:
        """One line for a person; empty where there is nothing to say."""
        if self.cut is None or self.store is None:
            return f"features are not stored: {self.reason}" if self.reason else ""
        views = ", ".join(
            f"{name} with mirror images" for name, e in self.entries.items() if e.layout.views > 1
        )
        new = [name for name, entry in self.entries.items() if not entry.found]
        how = f"{', '.join(new)} to be computed" if new else "found"
        size = gigabytes(self.bytes) + (f" ({views})" if views else "")
        return f"features of {self.cut} are stored: {size}, {how}, in {self.store.folder}"


def plan_cache(
    cfg: DictConfig,
    parts: RunObjects,
    checkpoint: Path | None,
    before: Mapping[str, Any] | None = None,
) -> CachePlan:
    """Decide what of the network runs once.

    Args:
        cfg: The config; `cache` says whether, where and how much.
        parts: Data, task and trainer. Where training starts from a checkpoint, the task gets its
            weights.
        checkpoint: That checkpoint.
        before: What `facts` gave when the run began, where it goes on: `auto` then stays with it.

    Returns:
        The plan; nothing is computed yet but the features of one sample.

    Raises:
        ConfigError: If `cache.features=true` and it cannot be done.
    """
    wanted = cfg.cache.features
    if wanted is False or not cfg.train:
        return CachePlan()
    if wanted == "auto" and before is not None and before.get("stored") is None:
        return CachePlan(reason=str(before.get("reason", "")))
    choosing = wanted == "auto" and before is None
    try:
        cut = _cut(parts)
        if choosing:
            _check_reads_all(parts)
        if checkpoint is not None:  # what is frozen stays as it is there
            parts.task.load_state_dict(load_checkpoint(checkpoint)["state_dict"])
        parts.trainer.precision_plugin.convert_module(parts.task)
        store = FeatureStore(Path(cfg.cache.dir), round(cfg.cache.max_gb * 1e9))
        entries = _entries(cut, parts, store, ["train", "val", *(["test"] if cfg.test else [])])
        if choosing:
            _check_pays_off(parts, entries["train"].layout.views)
        store.check_limit({entry.key: entry.layout.bytes for entry in entries.values()})
    except (NoCacheError, NotStorableError, StoreError) as error:
        if wanted is True:
            why = (
                str(error)
                or "nothing of the backbone is frozen for good; freeze it, or train it from a later layer on"
            )
            msg = f"cache.features: received true, and it cannot be: {why}"
            raise ConfigError(msg) from error
        return CachePlan(reason=str(error))
    return CachePlan(cut, entries, "", store)


def _cut(parts: RunObjects) -> Cut:
    """Where the network is cut; raises `NoCacheError` where it cannot be."""
    task = parts.task
    if not isinstance(task.network, Classifier):
        frozen = any(
            task.freezing.first_epoch(name) is None for name, _ in task.network.named_parameters()
        )
        raise NoCacheError(
            f"{type(task).__name__} has no head that reads features alone" if frozen else ""
        )
    cut = find_cut(task.network, task.freezing)
    if isinstance(cut, str):
        raise NoCacheError(cut)
    if isinstance(parts.trainer.strategy, FSDPStrategy):
        msg = "trainer.strategy=fsdp shards the frozen part too"
        raise NoCacheError(msg)
    return cut


def _check_reads_all(parts: RunObjects) -> None:
    """Raise `NoCacheError` where the network would run over more samples than training reads."""
    trainer: Any = parts.trainer
    limits = [f"limit_{stage}_batches" for stage in ("train", "val", "test")]
    for name in limits:
        limit = getattr(trainer, name)
        if isinstance(limit, int) or limit != 1.0:
            msg = f"trainer.{name}={limit} reads a part of the data"
            raise NoCacheError(msg)
    if trainer.overfit_batches or trainer.fast_dev_run:
        msg = "trainer.overfit_batches and trainer.fast_dev_run read a part of the data"
        raise NoCacheError(msg)


def _check_pays_off(parts: RunObjects, views: int) -> None:
    """Raise `NoCacheError` where one pass over the data reads as much as training.

    Also where the features are stored already: the same overrides lead to the same metrics to the
    last digit.
    """
    epochs = _epochs(parts)
    if epochs is not None and epochs <= views:
        all_of_them = "1 epoch" if epochs == 1 else f"{epochs} epochs"
        msg = f"{all_of_them} would read what {'one pass' if views == 1 else f'{views} passes'} over the data would compute"
        raise NoCacheError(msg)


def _epochs(parts: RunObjects) -> int | None:
    """Epochs of the whole training; None where they are not counted."""
    trainer = parts.trainer
    ends = [] if trainer.max_epochs in (None, -1) else [int(trainer.max_epochs or 0)]
    if trainer.max_steps > 0:
        ends.append(-(-trainer.max_steps // max(1, len(parts.datamodule.train_dataloader()))))
    return min(ends, default=None)


def _entries(
    cut: Cut, parts: RunObjects, store: FeatureStore, splits: list[str]
) -> dict[str, Entry]:
    part = digest_of_part(cut, parts.task, parts.trainer)
    sources = {split: parts.datamodule.feature_input(split) for split in splits}
    output = layer_output(
        cut,
        parts.task,
        parts.trainer,
        parts.datamodule.probe_batch() or _one_sample(sources["val"]),
    )
    entries = {}
    for split, source in sources.items():
        mirrored = split != "train" and getattr(parts.task, "mirror_test", False)
        views = 2 if mirrored else source.views
        lengths = source.lengths if output.of_tokens else None
        layout = Layout(output.dtype, output.shape, source.samples, views, lengths)
        key = digest_of_tensors([], part, source.sha256, layout.facts())[:32]
        entries[split] = Entry(source, layout, key, key in store)
    return entries


def _one_sample(source: FeatureInput) -> Any:  # noqa: ANN401 - each dataset has its batch type
    """The first sample of a batch."""
    return {name: value[:1] for name, value in next(iter(source.loader())).items()}


def fill_cache(plan: CachePlan, parts: RunObjects) -> float | None:
    """Find or compute what was planned, and have the datamodule read it.

    Args:
        plan: See `plan_cache`.
        parts: The datamodule gives `FeatureBatch`es from now on, and the network takes them.

    Returns:
        Seconds that it took; None where nothing was planned.

    Raises:
        StoreError: If they cannot be stored; training is then as it was.
    """
    if plan.cut is None or plan.store is None:
        return None
    start = time.perf_counter()
    stored: dict[str, StoredFeatures] = {}
    for split, entry in plan.entries.items():
        compute = partial(compute_features, plan.cut, parts, entry.source, split)
        stored[split], _ = plan.store.get(entry.key, entry.layout, compute)
    _use(parts.datamodule, parts.task, plan.cut, stored)
    return time.perf_counter() - start


def _use(
    datamodule: TransferDataModule[Any], task: Task, cut: Cut, stored: Mapping[str, StoredFeatures]
) -> None:
    assert isinstance(task.network, Classifier)  # noqa: S101 - tells the type checker
    task.network.cut = cut
    datamodule.read_from_cache(stored)
