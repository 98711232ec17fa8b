"""Computation of features: one pass of a split through the frozen part of a network."""

from collections.abc import Callable, Collection, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, cast

import lightning
import torch
from torch import Tensor, nn

from datamodules.batching.stored_features import FeatureInput, StoredFeatures
from datamodules.reading.progress import progress
from engine.build import RunObjects
from lightning_modules.base import Task
from lightning_modules.networks.freezing.prefix import Cut

# Layers whose weights autocast converts to half precision.
_CAST = (nn.Linear, nn.Conv1d, nn.Conv2d)
_HALF = {"bf16-mixed": torch.bfloat16, "16-mixed": torch.float16}

# Wanted keys, and a batch on the device -> the values of each key.
Outputs = Callable[[Collection[str], Any], Mapping[str, Tensor]]


@dataclass(frozen=True)
class LayerOutput:
    """The format of the frozen part's output.

    Attributes:
        dtype: The dtype of the features.
        shape: The shape of one sample's features, or of one token's.
        per_token: True if each token has its own features.
    """

    dtype: torch.dtype
    shape: tuple[int, ...]
    per_token: bool


def layer_output(cut: Cut, task: Task, trainer: lightning.Trainer, batch: Any) -> LayerOutput:  # noqa: ANN401 - each dataset has its batch type
    """Return the format of the output at a cut, found by running a batch of one sample."""
    with in_evaluation(task, trainer):
        output = cut.prefix(task.features, on_device(task, batch))
    per_token = output.lengths is not None
    return LayerOutput(
        output.values.dtype, tuple(output.values.shape[2 if per_token else 1 :]), per_token
    )


def compute_features(
    outputs: Outputs,
    objects: RunObjects,
    source: FeatureInput,
    name: str,
    out: Mapping[str, StoredFeatures],
) -> None:
    """Compute the features of a split, in the batches and the precision of an evaluation.

    Args:
        outputs: Returns the values of some keys for a batch on the device, from one pass.
        objects: The run's objects. The trainer sets the device and the precision.
        source: The input of the network.
        name: What is computed, for the progress bar.
        out: The features by key, all of the same views, filled in place.
    """
    task, views = objects.task, next(iter(out.values())).views
    with (
        in_evaluation(task, objects.trainer),
        progress(name, views * len(source.positions), "batches") as advance,
    ):
        for positions, batch in zip(source.positions, source.loader(), strict=True):
            prepared = objects.datamodule.on_before_batch_transfer(batch, 0)
            for view in range(views):
                viewed = on_device(task, source.view(prepared, view))
                for key, values in outputs(out.keys(), viewed).items():
                    out[key].put(torch.as_tensor(positions), view, values.cpu())
                advance(1)


def outputs_at(
    cuts: Mapping[str, Cut],
    task: Task,
    keys: Collection[str],
    batch: Any,  # noqa: ANN401 - each dataset has its batch type
) -> dict[str, Tensor]:
    """Return the output at some cuts for a batch, from one pass.

    Args:
        cuts: Key -> cut.
        task: The task.
        keys: The keys of the wanted cuts. For one, only the layers before it run; for several, the
            whole network does, once.
        batch: A batch on the device of the task.
    """
    if len(keys) == 1:
        return {key: cuts[key].prefix(task.features, batch).values for key in keys}
    wanted = {key: cuts[key].layer for key in keys}
    layers = [layer for layer in wanted.values() if layer is not None]
    found = cast(Any, task.features).layer_features(layers, batch)
    return {key: found[layer].values for key, layer in wanted.items()}


def on_device(task: Task, batch: Any) -> Any:  # noqa: ANN401 - each dataset has its batch type
    """Return a batch on the device of a task."""
    return {name: value.to(task.device) for name, value in batch.items()}


@contextmanager
def in_evaluation(task: Task, trainer: lightning.Trainer) -> Iterator[None]:
    """Put the task on the run's device, in eval mode, in the run's precision, without gradients.

    Device and mode are restored afterwards.
    """
    before, training = task.device, task.training
    task.to(trainer.strategy.root_device).eval()
    try:
        half = _HALF.get(str(trainer.precision))
        # Not inference mode: tensors that a network caches in its first call could then not be used
        # in training.
        with (
            torch.no_grad(),
            trainer.precision_plugin.forward_context(),
            _half_precision_weights(task.features, half),
        ):
            yield
    finally:
        task.to(before).train(training)


@contextmanager
def _half_precision_weights(part: nn.Module, dtype: torch.dtype | None) -> Iterator[None]:
    """Store the weights in half precision, so that autocast does not convert them in every call.

    The results are the same. The original weights are restored afterwards.

    Args:
        part: The module whose weights are converted.
        dtype: The half-precision dtype; None changes nothing.
    """
    originals: list[tuple[nn.Parameter, Tensor]] = []
    if dtype is not None:
        # Exact types only: subclasses may use their weights in another way.
        layers = [module for module in part.modules() if type(module) in _CAST]
        parameters = {id(p): p for layer in layers for p in layer.parameters(recurse=False)}
        originals = [(parameter, parameter.data) for parameter in parameters.values()]
    try:
        for parameter, original in originals:
            parameter.data = original.to(dtype)
        yield
    finally:
        for parameter, original in originals:
            parameter.data = original
