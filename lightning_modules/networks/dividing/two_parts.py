"""Running any network up to a layer, or from a layer on, through its own forward pass.

From a layer on, the modules before it do not run: stand-ins return empty tensors of the same
shapes. The layer then receives the stored state in place of its input. A trial run shows whether a
network allows this: stand-ins return not-a-number, and the result must equal that of the whole
network.
"""

import itertools
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field, replace
from typing import Any

import torch
from torch import Tensor, nn

from lightning_modules.networks.dividing.counting import multiplications
from run_folders.errors import UserError, brief

# Runs a network on an input.
Run = Callable[[], Any]
# Sizes of an input: the number of samples, and of tokens if there are any.
Sizes = tuple[int, ...]


class CannotDivideError(UserError, ValueError):
    """A network cannot run from a layer on; the message is the reason."""


class _ReachedError(Exception):
    """Stops the forward pass at the requested layer and carries its input."""

    def __init__(self, state: Tensor | None) -> None:
        super().__init__()
        self.state = state


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
class _Call:
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
class _Shape:
    """A tensor's shape as a function of the sizes of the input.

    Attributes:
        factors: For each dimension, a factor and the indices of the sizes that multiply it.
    """

    factors: tuple[tuple[int, tuple[int, ...]], ...]

    def of(self, sizes: Sizes) -> list[int]:
        """Return the shape for an input of these sizes."""
        return [factor * math.prod(sizes[i] for i in chosen) for factor, chosen in self.factors]


@dataclass(frozen=True)
class Record:
    """What a network ran on some trials, in eval mode.

    Attributes:
        trials: The trials.
        calls: For each trial, the calls of the modules by name.
        outputs: For each trial, the output of the network.
    """

    trials: Sequence[TrialInput]
    calls: Sequence[Mapping[str, _Call]]
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


def record(model: nn.Module, trials: Sequence[TrialInput]) -> Record:
    """Run a network on trials and record its modules.

    Args:
        model: The network. Its modes and the random generators stay the same.
        trials: Two or more inputs; each size differs between two of them while the others stay.
    """
    with _evaluating(model):
        found = [_recorded(model, trial.run) for trial in trials]
    return Record(trials, [calls for calls, _ in found], [output for _, output in found])


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
    with _evaluating(model):
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


@contextmanager
def _evaluating(model: nn.Module) -> Iterator[None]:
    """Put a network into eval mode, without gradients; the modes are restored afterwards."""
    training = [module for module in model.modules() if module.training]
    model.eval()
    try:
        with torch.no_grad(), torch.random.fork_rng(devices=[]):
            yield
    finally:
        for module in training:
            module.training = True


def _recorded(model: nn.Module, run: Run) -> tuple[dict[str, _Call], Tensor]:
    """Run a network; return the calls of its modules, by name, and its output."""
    calls: dict[str, _Call] = {}
    clock = itertools.count()
    with ExitStack() as stack:
        for name, module in model.named_modules():
            if name:
                stack.enter_context(_recording(module, name, calls, clock))
        return calls, run()


@contextmanager
def _recording(
    module: nn.Module, name: str, calls: dict[str, _Call], clock: Iterator[int]
) -> Iterator[None]:
    def enter(_: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        call = calls.setdefault(name, _Call(next(clock)))
        call.reads |= first_tensor(args, kwargs)[1] is not None

    def leave(_: nn.Module, __: object, output: Any) -> None:  # noqa: ANN401 - any output
        calls[name].last = next(clock)
        calls[name].outputs.append(_shapes(output))

    handles = [
        module.register_forward_pre_hook(enter, prepend=True, with_kwargs=True),
        module.register_forward_hook(leave),
    ]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


def _reads_nothing(_: nn.Module, call: _Call) -> bool:
    """Whether a module needs no stand-in, because it has no input: BEiT's biases of token pairs."""
    return not call.reads


def _has_no_parameters(module: nn.Module, call: _Call) -> bool:
    """Whether a module needs no stand-in, because it is cheap: rotary positions."""
    return not call.reads or next(module.parameters(), None) is None


def _parts(
    model: nn.Module, layer: str, recorded: Record, runs: Callable[[nn.Module, _Call], bool]
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
            _fitted(outputs, sizes, name)
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
        return _built(next(left), sizes, make)

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


def first_tensor(
    args: tuple[Any, ...], kwargs: Mapping[str, Any]
) -> tuple[int | str | None, Tensor | None]:
    """Return the index or the name of the first tensor among the arguments, and the tensor."""
    given: list[tuple[int | str, Any]] = [*enumerate(args), *kwargs.items()]
    for position, value in given:
        if isinstance(value, Tensor):
            return position, value
    return None, None


class _Unknown:
    """An output that is no tensor, and differs between trials or is not a plain value."""


def _shapes(output: Any) -> Any:  # noqa: ANN401 - a nested output
    """Return a nested output with shapes in place of tensors."""
    if isinstance(output, Tensor):
        return output.shape if output.is_floating_point() else _Unknown()
    if isinstance(output, dict):
        return {key: _shapes(value) for key, value in output.items()}
    if isinstance(output, list | tuple):
        shapes = [_shapes(value) for value in output]
        return shapes if isinstance(output, list) else tuple(shapes)
    return output if output is None or isinstance(output, bool | int | str) else _Unknown()


def _fitted(outputs: Sequence[Any], sizes: Sequence[Sizes], name: str) -> Any:  # noqa: ANN401 - a nested output
    """Return a nested output with a `_Shape` for each tensor, from the outputs of all trials."""
    first = outputs[0]
    if isinstance(first, torch.Size):
        return _Shape(tuple(_factor(dims, sizes, name) for dims in zip(*outputs, strict=True)))
    if isinstance(first, dict):
        return {key: _fitted([o[key] for o in outputs], sizes, name) for key in first}
    if isinstance(first, list | tuple):
        return type(first)(_fitted(each, sizes, name) for each in zip(*outputs, strict=True))
    return first if all(output == first for output in outputs) else _Unknown()


def _factor(dims: Sequence[int], sizes: Sequence[Sizes], name: str) -> tuple[int, tuple[int, ...]]:
    """Return the factor and the sizes whose product is a dimension in all trials."""
    count = len(sizes[0])
    for chosen in [(), *((i,) for i in range(count)), tuple(range(count))]:
        products = [math.prod(each[i] for i in chosen) for each in sizes]
        factor = dims[0] // products[0]
        if all(factor * product == dim for product, dim in zip(products, dims, strict=True)):
            return factor, chosen
    msg = f"the shape of the output of {name} depends on the input in an unknown way"
    raise CannotDivideError(msg)


def _built(shape: Any, sizes: Sizes, make: Callable[[list[int]], Tensor]) -> Any:  # noqa: ANN401 - a nested output
    if isinstance(shape, _Shape):
        return make(shape.of(sizes))
    if isinstance(shape, dict):
        return {key: _built(value, sizes, make) for key, value in shape.items()}
    if isinstance(shape, list | tuple):
        return type(shape)(_built(value, sizes, make) for value in shape)
    return shape
