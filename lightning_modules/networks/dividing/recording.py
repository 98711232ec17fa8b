"""Recording which modules a network runs, in which order, and what they return."""

import itertools
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

from lightning_modules.networks.dividing.shapes import Sizes, shapes_of

# Runs a network on an input.
Run = Callable[[], Any]


@dataclass(frozen=True)
class TrialInput:
    """An input to try a network with.

    Attributes:
        sizes: Its sizes, which differ between trials.
        run: Runs the network on it, and returns its features.
        run_blank: The same with another input of the same sizes.
    """

    sizes: Sizes
    run: Callable[[], Tensor]
    run_blank: Callable[[], Tensor]


@dataclass
class Call:
    """Calls of a module in a forward pass.

    Attributes:
        first, last: Positions of the first entry and of the last exit, among all of both.
        outputs: The output of each call.
        reads: Whether a call had a tensor among its arguments.
    """

    first: int
    last: int = -1
    outputs: list[Any] = field(default_factory=list)
    reads: bool = False


@dataclass(frozen=True)
class Record:
    """What a network ran on some trials, in eval mode.

    Attributes:
        trials: The trials.
        calls: For each trial, the calls of the modules by name.
        outputs: For each trial, the output of the network.
    """

    trials: Sequence[TrialInput]
    calls: Sequence[Mapping[str, Call]]
    outputs: Sequence[Tensor]

    def has_one_input(self, layer: str) -> bool:
        """Return whether the network runs a layer exactly once, on a tensor."""
        call = self.calls[0].get(layer)
        return call is not None and len(call.outputs) == 1 and call.reads

    def layers(self, model: nn.Module) -> list[str]:
        """Return the modules that own parameters, in the order in which they run first."""
        owners = [
            name
            for name, module in model.named_modules()
            if next(module.parameters(recurse=False), None) is not None and name in self.calls[0]
        ]
        return sorted(owners, key=lambda name: self.calls[0][name].first)


def record(model: nn.Module, trials: Sequence[TrialInput]) -> Record:
    """Run a network on trials and record its modules.

    Args:
        model: The network. Its modes and the random generators stay the same.
        trials: Two or more inputs; each size differs between two of them while the others stay.
    """
    with evaluating(model):
        found = [_recorded(model, trial.run) for trial in trials]
    return Record(trials, [calls for calls, _ in found], [output for _, output in found])


@contextmanager
def evaluating(model: nn.Module) -> Iterator[None]:
    """Put a network into eval mode, without gradients; the modes are restored afterwards."""
    training = [module for module in model.modules() if module.training]
    model.eval()
    try:
        with torch.no_grad(), torch.random.fork_rng(devices=[]):
            yield
    finally:
        for module in training:
            module.training = True


def _recorded(model: nn.Module, run: Run) -> tuple[dict[str, Call], Tensor]:
    """Run a network; return the calls of its modules, by name, and its output."""
    calls: dict[str, Call] = {}
    clock = itertools.count()
    with ExitStack() as stack:
        for name, module in model.named_modules():
            if name:
                stack.enter_context(_recording(module, name, calls, clock))
        return calls, run()


@contextmanager
def _recording(
    module: nn.Module, name: str, calls: dict[str, Call], clock: Iterator[int]
) -> Iterator[None]:
    def enter(_: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        call = calls.setdefault(name, Call(next(clock)))
        call.reads |= first_tensor(args, kwargs)[1] is not None

    def leave(_: nn.Module, __: object, output: Any) -> None:  # noqa: ANN401 - any output
        calls[name].last = next(clock)
        calls[name].outputs.append(shapes_of(output))

    handles = [
        module.register_forward_pre_hook(enter, prepend=True, with_kwargs=True),
        module.register_forward_hook(leave),
    ]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


def first_tensor(
    args: tuple[Any, ...], kwargs: Mapping[str, Any]
) -> tuple[int | str | None, Tensor | None]:
    """Return the index or the name of the first tensor among the arguments, and the tensor."""
    given: list[tuple[int | str, Any]] = [*enumerate(args), *kwargs.items()]
    for position, value in given:
        if isinstance(value, Tensor):
            return position, value
    return None, None
