"""Running any network up to a layer, or from a layer on, through its own forward pass.

From a layer on, the modules before it do not run: stand-ins return empty tensors of the same
shapes. The layer then receives the stored state in place of its input. A trial run shows whether a
network allows this: stand-ins return not-a-number, and the result must equal that of the whole
network.
"""

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor, nn

from lightning_modules.networks.dividing.counting import multiplications
from lightning_modules.networks.dividing.errors import CannotDivideError
from lightning_modules.networks.dividing.recording import (
    Call,
    Record,
    Run,
    evaluating,
    first_tensor,
)
from lightning_modules.networks.dividing.shapes import Sizes, built, fitted
from run_folders.errors import brief


class _ReachedError(Exception):
    """Stops the forward pass at the requested layer and carries its input."""

    def __init__(self, state: Tensor | None) -> None:
        super().__init__()
        self.state = state


@dataclass(frozen=True)
class TwoParts:
    """A network that runs up to a layer, and from the layer on.

    Attributes:
        layer: Name of the first layer of the second part.
        stand_ins: Modules that run before the layer -> the shapes of the outputs of each call.
        later: Names of the modules that run from the layer on only.
        parameters_before: Number of parameters of the modules that have stand-ins.
        state: Shape of the input of the layer on the last trial.
    """

    layer: str
    stand_ins: Mapping[str, Sequence[Any]]
    later: tuple[str, ...]
    parameters_before: int
    state: tuple[int, ...] = ()

    def forward_until(self, model: nn.Module, run: Run) -> Tensor:
        """Run the network up to the layer and return the layer's input."""
        return forward_until(model, self.layer, run)

    def forward_from(self, model: nn.Module, state: Tensor, sizes: Sizes, run_blank: Run) -> Any:  # noqa: ANN401 - what `run_blank` returns
        """Run the network from the layer on.

        Args:
            model: The network.
            state: Input of the layer, as `forward_until` returned it.
            sizes: Sizes of the input that led to the state.
            run_blank: Runs the network on any input of these sizes.

        Returns:
            What `run_blank` returns, computed from the state.
        """

        def empty(shape: list[int]) -> Tensor:
            return torch.empty(shape, dtype=state.dtype, device=state.device)

        return _forward_from(model, self, state, empty, sizes, run_blank)


@dataclass(frozen=True)
class PrefixCost:
    """What the layers before a division compute.

    Attributes:
        share: Share of the multiplications of a whole forward pass, 0..1.
        multiplications: Multiplications for one sample, or for one token if there are any.
    """

    share: float
    multiplications: float


def prefix_cost(model: nn.Module, parts: TwoParts, recorded: Record) -> PrefixCost:
    """Count the multiplications of the first part on the last trial."""
    trial = recorded.trials[-1]
    before = multiplications(model, lambda: parts.forward_until(model, trial.run))
    whole = multiplications(model, trial.run)
    return PrefixCost(before / whole if whole else 1.0, before / math.prod(trial.sizes))


def forward_until(model: nn.Module, layer: str, run: Run) -> Tensor:
    """Run a network up to a layer, without the layer itself, and return the layer's input.

    Raises:
        CannotDivideError: If the forward pass of the network does not run the layer.
    """

    def stop(_: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        raise _ReachedError(first_tensor(args, kwargs)[1])

    handle = model.get_submodule(layer).register_forward_pre_hook(
        stop, prepend=True, with_kwargs=True
    )
    try:
        run()
    except _ReachedError as reached:
        if reached.state is None:
            msg = f"{layer} receives no tensor"
            raise CannotDivideError(msg) from None
        return reached.state
    finally:
        handle.remove()
    msg = f"{type(model).__name__} does not run its layer {layer}"
    raise CannotDivideError(msg)


def divide(model: nn.Module, layer: str, recorded: Record) -> TwoParts:
    """Divide a network before a layer, and check that both parts equal the whole.

    Args:
        model: The network.
        layer: Name of the first layer of the second part.
        recorded: What `record` returned for the network with its present weights.

    Raises:
        CannotDivideError: If a tensor besides the layer's input passes the division, if the layer
            runs more than once, or if the shape of an output depends on the input in an unknown
            way.
    """
    reason = ""
    with evaluating(model):
        for runs in (_reads_nothing, _has_no_parameters):
            try:
                parts = _parts(model, layer, recorded, runs)
                state = _check(model, parts, recorded)
            except CannotDivideError as error:
                reason = str(error)
            except Exception as error:  # own networks raise any
                reason = f"it cannot be divided before {layer} ({brief(error)})"
            else:
                return replace(parts, state=tuple(state.shape))
    raise CannotDivideError(reason)


def _reads_nothing(_: nn.Module, call: Call) -> bool:
    """Whether a module needs no stand-in, because it has no input: BEiT's biases of token pairs."""
    return not call.reads


def _has_no_parameters(module: nn.Module, call: Call) -> bool:
    """Whether a module needs no stand-in, because it is cheap: rotary positions."""
    return not call.reads or next(module.parameters(), None) is None


def _parts(
    model: nn.Module, layer: str, recorded: Record, runs: Callable[[nn.Module, Call], bool]
) -> TwoParts:
    """Return the parts; modules for which `runs` is true get no stand-in."""
    calls, sizes = recorded.calls[0], [trial.sizes for trial in recorded.trials]
    if layer not in calls:
        msg = f"{type(model).__name__} does not run its layer {layer}"
        raise CannotDivideError(msg)
    if len(calls[layer].outputs) != 1:
        msg = f"{type(model).__name__} runs its layer {layer} {len(calls[layer].outputs)} times"
        raise CannotDivideError(msg)
    start = calls[layer].first
    before = {name for name, call in calls.items() if call.last < start}
    later = {name for name, call in calls.items() if call.first >= start}
    stand_ins = {
        name: [
            fitted(outputs, sizes, name)
            for outputs in zip(*(each[name].outputs for each in recorded.calls), strict=True)
        ]
        for name in sorted(_outermost(before))
        if not runs(model.get_submodule(name), calls[name])
    }
    parameters = sum(
        p.numel() for name in stand_ins for p in model.get_submodule(name).parameters()
    )
    return TwoParts(layer, stand_ins, tuple(sorted(_outermost(later))), parameters)


def _outermost(names: set[str]) -> set[str]:
    """Return the names that have no ancestor among them."""

    def ancestors(name: str) -> Iterator[str]:
        while "." in name:
            name = name.rpartition(".")[0]
            yield name

    return {name for name in names if not any(ancestor in names for ancestor in ancestors(name))}


def _check(model: nn.Module, parts: TwoParts, recorded: Record) -> Tensor:
    """Return the state between the parts.

    Raises:
        CannotDivideError: Unless both parts equal the whole, to the last bit.
    """
    trial, expected = recorded.trials[-1], recorded.outputs[-1]
    state = parts.forward_until(model, trial.run)
    if not state.is_floating_point():
        msg = f"{parts.layer} receives no states"
        raise CannotDivideError(msg)

    def not_a_number(shape: list[int]) -> Tensor:
        return torch.full(shape, math.nan, dtype=state.dtype, device=state.device)

    try:
        found = _forward_from(model, parts, state, not_a_number, trial.sizes, trial.run_blank)
    except Exception as error:
        msg = f"the layers from {parts.layer} on do not run alone ({brief(error)})"
        raise CannotDivideError(msg) from error
    if not torch.equal(found, expected):
        msg = f"more than one tensor passes from the layers before {parts.layer} to the others"
        raise CannotDivideError(msg)
    return state


def _forward_from(
    model: nn.Module,
    parts: TwoParts,
    state: Tensor,
    make: Callable[[list[int]], Tensor],
    sizes: Sizes,
    run_blank: Run,
) -> Any:  # noqa: ANN401 - what `run_blank` returns
    with ExitStack() as stack:
        for name, shapes in parts.stand_ins.items():
            stack.enter_context(_standing_in(model.get_submodule(name), shapes, sizes, make))
        stack.enter_context(_receiving(model.get_submodule(parts.layer), state))
        return run_blank()


@contextmanager
def _standing_in(
    module: nn.Module, shapes: Sequence[Any], sizes: Sizes, make: Callable[[list[int]], Tensor]
) -> Iterator[None]:
    """Let a module return tensors of these shapes, one for each call, without computing."""
    left = iter(shapes)

    def forward(*_: object, **__: object) -> Any:  # noqa: ANN401 - as the module's own
        return built(next(left), sizes, make)

    own = vars(module).get("forward")
    module.forward = forward
    try:
        yield
    finally:
        if own is None:
            del module.forward
        else:
            module.forward = own


@contextmanager
def _receiving(layer: nn.Module, state: Tensor) -> Iterator[None]:
    """Let a layer receive a state in place of its first tensor."""

    def replace(
        _: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> tuple[tuple[Any, ...], dict[str, Any]]:
        position = first_tensor(args, kwargs)[0]
        if isinstance(position, int):
            return (*args[:position], state, *args[position + 1 :]), kwargs
        return args, {**kwargs, str(position): state}

    handle = layer.register_forward_pre_hook(replace, prepend=True, with_kwargs=True)
    try:
        yield
    finally:
        handle.remove()
