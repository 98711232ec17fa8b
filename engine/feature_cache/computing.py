"""Runs the frozen part of a network once over a split."""

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import lightning
import torch
from rich.console import Console
from rich.progress import Progress
from torch import Tensor, nn

from datamodules.batching.stored_features import FeatureInput, StoredFeatures
from engine.build import RunObjects
from engine.processes.ranks import is_first
from lightning_modules.base import Task
from lightning_modules.networks.backbones.features import Features
from lightning_modules.networks.freezing.prefix import Cut

_CAST = (
    nn.Linear,
    nn.Conv1d,
    nn.Conv2d,
)  # what autocast computes in half precision, weights and all
_HALF = {"bf16-mixed": torch.bfloat16, "16-mixed": torch.float16}


@dataclass(frozen=True)
class LayerOutput:
    """What a cut gives for one sample.

    Attributes:
        dtype: Of its numbers.
        shape: Of one sample's features, or of one token's.
        of_tokens: Whether there are as many as the sample has tokens.
    """

    dtype: torch.dtype
    shape: tuple[int, ...]
    of_tokens: bool


def layer_output(cut: Cut, task: Task, trainer: lightning.Trainer, batch: Any) -> LayerOutput:  # noqa: ANN401 - each dataset has its batch type
    """Find out what a cut gives, from a batch of one sample."""
    with _frozen(task, trainer):
        given = _run(cut, task, batch)
    of_tokens = given.lengths is not None
    return LayerOutput(
        given.values.dtype, tuple(given.values.shape[2 if of_tokens else 1 :]), of_tokens
    )


def compute_features(
    cut: Cut, parts: RunObjects, source: FeatureInput, name: str, out: StoredFeatures
) -> None:
    """Compute the features of a split, in the batches and with the numbers of an evaluation.

    Args:
        cut: What comes before it runs.
        parts: Task and trainer, which say where and in which precision.
        source: What is read.
        name: Of the split, for the progress bar.
        out: Is filled.
    """
    with (
        _frozen(parts.task, parts.trainer),
        _progress(f"features of {name}", out.views * len(source.positions)) as progress,
    ):
        for positions, batch in zip(source.positions, source.loader(), strict=True):
            sound = parts.datamodule.on_before_batch_transfer(batch, 0)
            for state in range(out.views):
                given = _run(cut, parts.task, source.view(sound, state))
                out.put(torch.as_tensor(positions), state, given.values.cpu())
                progress()


def _run(cut: Cut, task: Task, batch: Any) -> Features:  # noqa: ANN401 - each dataset has its batch type
    features = task.network.get_submodule("features")
    there = {name: value.to(task.device) for name, value in batch.items()}
    return cut.prefix(features, there)


@contextmanager
def _frozen(task: Task, trainer: lightning.Trainer) -> Iterator[None]:
    """The task on the run's device, in eval mode and the run's precision, without gradients; all of it as before afterwards."""
    before, training = task.device, task.training
    task.to(trainer.strategy.root_device).eval()
    try:
        half = _HALF.get(str(trainer.precision))
        # Not inference mode: what a network keeps of its first call could then not be trained with.
        with (
            torch.no_grad(),
            trainer.precision_plugin.forward_context(),
            _held_in_half(task.network.get_submodule("features"), half),
        ):
            yield
    finally:
        task.to(before).train(training)


@contextmanager
def _held_in_half(part: nn.Module, dtype: torch.dtype | None) -> Iterator[None]:
    """Keep half-precision copies of the weights that autocast would make on every call: the same numbers, without the work."""
    kept: list[tuple[nn.Parameter, Tensor]] = []
    if dtype is not None:
        layers = [
            module for module in part.modules() if type(module) in _CAST
        ]  # subclasses may do with a weight what they like
        parameters = {id(p): p for layer in layers for p in layer.parameters(recurse=False)}
        kept = [(parameter, parameter.data) for parameter in parameters.values()]
    try:
        for parameter, whole in kept:
            parameter.data = whole.to(dtype)
        yield
    finally:
        for parameter, whole in kept:
            parameter.data = whole


@contextmanager
def _progress(what: str, steps: int) -> Iterator[Any]:
    """A bar on a terminal, nothing in a log file."""
    if not (sys.stderr.isatty() and is_first()):
        yield lambda: None
        return
    with Progress(console=Console(stderr=True), transient=True) as bar:
        task = bar.add_task(what, total=steps)
        yield lambda: bar.advance(task)
