"""Decide which layers of a network run once, or why none do."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from lightning.pytorch.strategies import FSDPStrategy
from omegaconf import DictConfig

from datamodules.batching.stored_features import (
    FeatureInput,
    Layout,
    NotStorableError,
    digest_of_tensors,
)
from engine.build import RunObjects
from engine.checkpoints import load_checkpoint
from engine.config.errors import ConfigError
from engine.feature_cache.cache_plan import CachePlan, Entry
from engine.feature_cache.computing import layer_output
from engine.feature_cache.key import frozen_part_digest
from engine.feature_cache.store import FeatureStore, StoreError
from lightning_modules.networks.classifier import Classifier
from lightning_modules.networks.freezing.prefix import Cut, find_cut

# Smallest share of the network's multiplications that is worth a cache.
_LEAST_SHARE = 0.05
# Multiplications that take as long as reading one stored byte: about 1 GB/s of one process from
# memory-mapped files, against 50 to 100 G multiplications per second on a few cores. A GPU computes
# 100 times as many and receives a few GB/s.
_MULTIPLICATIONS_PER_BYTE, _ON_GPU = {"cpu": 50}, 2000


class NoCacheError(Exception):
    """Features are not cached; the message is the reason, empty where all layers are trained."""


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
            _check_saves_passes(objects, entries["train"].layout.views)
            _check_saves_time(cut, objects, entries["train"].layout)
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


def _check_saves_passes(objects: RunObjects, views: int) -> None:
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


def _check_saves_time(cut: Cut, objects: RunObjects, layout: Layout) -> None:
    """Check that the layers before the cut compute more than reading their output takes.

    The decision depends on the network and the type of device only, not on measured times.

    Args:
        cut: The cut.
        objects: The run's objects.
        layout: The format of the features of train.

    Raises:
        NoCacheError: If caching does not save time.
    """
    cost = cut.cost(objects.task.features)
    if cost is None:
        return
    if cost.share < _LEAST_SHARE:
        msg = f"the layers before {cut.layer} compute only {cost.share:.1%} of the network"
        raise NoCacheError(msg)
    device = objects.trainer.strategy.root_device.type
    row_bytes = layout.bytes / max(1, layout.rows)
    if cost.multiplications < row_bytes * _MULTIPLICATIONS_PER_BYTE.get(device, _ON_GPU):
        msg = (
            f"the input of {cut.layer} is large: computing it takes only "
            f"{cost.multiplications / row_bytes:,.0f} multiplications for each byte"
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
