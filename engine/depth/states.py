"""Pooled states of all blocks of a backbone, computed in one pass and stored."""

import time
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from datamodules.batching.stored_features import (
    FeatureInput,
    Layout,
    NotStorableError,
    digest_of_tensors,
)
from engine.config.errors import ConfigError
from engine.depth.study import StudyRequest
from engine.feature_cache.computing import compute_features, in_evaluation, on_device
from engine.feature_cache.key import frozen_part_digest
from engine.feature_cache.store import FeatureStore
from lightning_modules.networks.backbones.divided_encoder import DividedEncoder
from lightning_modules.networks.dividing.layer_states import PooledState
from lightning_modules.networks.freezing.prefix import Cut

_SPLITS = ("train", "val")


@dataclass(frozen=True)
class States:
    """Pooled states of the samples of train and val.

    Attributes:
        values: State -> split -> [N, C] float32.
        labels: Split -> [N] int64.
        indices: [M] int64 rows of the validation samples in their file.
        seconds: Duration of the pass; 0 if the states were stored already.
    """

    values: Mapping[PooledState, Mapping[str, npt.NDArray[np.float32]]]
    labels: Mapping[str, npt.NDArray[np.int64]]
    indices: npt.NDArray[np.int64]
    seconds: float


def stored_states(request: StudyRequest, layers: Sequence[str]) -> States:
    """Return the states that layers receive, and the output of the backbone.

    All are computed in one pass over train and val, with images that are not augmented. They are
    stored in the feature cache.

    Args:
        request: The run's config, folder and objects.
        layers: Names of layers of the backbone.

    Raises:
        StoreError: If the states cannot be stored.
        ConfigError: If the dataset does not support stored features, or states are not finite.
    """
    objects, cache = request.objects, request.cfg.cache
    store = FeatureStore(Path(cache.dir), round(cache.max_gb * 1e9))
    try:
        sources = {s: objects.datamodule.feature_input(s, augmented=False) for s in _SPLITS}
    except NotStorableError as error:
        msg = f"depth: {error}"
        raise ConfigError(msg) from error
    part = frozen_part_digest(Cut(), objects.task, objects.trainer)
    widths = _widths(request, sources["val"], layers)
    start, existed = time.perf_counter(), True
    values: dict[PooledState, dict[str, npt.NDArray[np.float32]]] = {s: {} for s in widths}
    for split, source in sources.items():
        layouts = {
            s: Layout(torch.float32, (width,), source.samples) for s, width in widths.items()
        }
        keys = {
            state: digest_of_tensors([], part, *state, source.sha256, layout.facts())[:32]
            for state, layout in layouts.items()
        }
        outputs = partial(_pooled, request.encoder, layers, keys)
        compute = partial(compute_features, outputs, objects, source, f"states of {split}")
        found, all_existed = store.get_all({keys[s]: layouts[s] for s in widths}, compute)
        existed &= all_existed
        for state in widths:
            values[state][split] = found[keys[state]].values.numpy()
            if not np.isfinite(values[state][split]).all():
                msg = f"depth: states of {state.layer or 'the output'} are not finite; set " + (
                    "trainer.precision=32-true"
                )
                raise ConfigError(msg)
    labels = {split: objects.datamodule.labels_of(split) for split in _SPLITS}
    seconds = 0.0 if existed else time.perf_counter() - start
    return States(
        values,
        {split: np.asarray(found) for split, found in labels.items()},
        np.asarray(objects.datamodule.splits["val"].indices),
        seconds,
    )


def _widths(
    request: StudyRequest, source: FeatureInput, layers: Sequence[str]
) -> dict[PooledState, int]:
    """Return the number of channels of each state, found by running one batch."""
    batch = request.objects.datamodule.on_before_batch_transfer(next(iter(source.loader())), 0)
    with in_evaluation(request.objects.task, request.objects.trainer):
        states = request.encoder.pooled_states(layers, on_device(request.objects.task, batch))
    return {state: values.shape[1] for state, values in states.items()}


def _pooled(
    encoder: DividedEncoder,
    layers: Sequence[str],
    keys: Mapping[PooledState, str],
    wanted: Collection[str],
    batch: Any,  # noqa: ANN401 - each dataset has its batch type
) -> dict[str, Tensor]:
    """Return the states of a batch by the wanted keys, from one pass."""
    states = encoder.pooled_states(layers, batch)
    missing = [state for state in keys if state not in states]
    if missing:
        msg = (
            f"depth: {missing[0].layer} does not receive states of the same shape in every batch; "
            f"set depth=none"
        )
        raise ConfigError(msg)
    return {key: states[state] for state, key in keys.items() if key in wanted}
