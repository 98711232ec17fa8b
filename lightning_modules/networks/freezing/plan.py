"""Which parameters train at which epoch: a pure function of a plan and the epoch.

Nothing is accumulated, so a resumed run, a validation pass or a wrapped model cannot bring it out
of step. What is frozen has `requires_grad=False` and is in eval mode: dropout off, BatchNorm
statistics still.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field

from torch import nn

from run_folders.errors import UserError, near_names


class FreezingError(UserError, ValueError):
    """A freezing plan names something that the network does not have, or contradicts itself."""


@dataclass(frozen=True)
class FreezingPlan:
    """From which epoch on each part of a network trains.

    In both mappings of names the longest name that is a parameter's prefix decides.

    Attributes:
        starts: Name of a module or parameter -> first epoch in which it trains, from 0; None is
            never. What no name covers trains from epoch 0.
        groups: Name -> what sets its parameter group apart, and a factor on its learning rate; else
            "" and 1.
        stages: First epoch of each stage -> the layer from which on the backbone trains; for
            people.
    """

    starts: Mapping[str, int | None] = field(default_factory=dict)
    groups: Mapping[str, tuple[str, float]] = field(default_factory=dict)
    stages: Mapping[int, str | None] = field(default_factory=dict)

    def first_epoch(self, parameter: str) -> int | None:
        """The epoch from which a parameter trains; None for never."""
        return next((self.starts[name] for name in _prefixes(parameter) if name in self.starts), 0)

    def group(self, parameter: str) -> tuple[str, float]:
        """What sets a parameter's group apart, and the factor on its learning rate."""
        return next(
            (self.groups[name] for name in _prefixes(parameter) if name in self.groups), ("", 1.0)
        )

    def trains(self, parameter: str, epoch: int) -> bool:
        """Whether a parameter trains in an epoch."""
        first = self.first_epoch(parameter)
        return first is not None and first <= epoch

    @property
    def changes(self) -> bool:
        """Whether an epoch differs from the first."""
        return any(self.starts.values())

    def check(self, network: nn.Module) -> None:
        """Raise `FreezingError` where a name matches nothing in the network."""
        known = [name for name, _ in network.named_modules() if name] + [
            name for name, _ in network.named_parameters()
        ]
        for name in (*self.starts, *self.groups):
            if name not in known:
                raise unknown_layer(name, known)


def unknown_layer(name: str, known: list[str]) -> FreezingError:
    """The one error of a layer that does not exist."""
    near = near_names(name, known, cutoff=0.4) or known[:3]
    return FreezingError(f"no layer is called '{name}'; the nearest are {', '.join(near)}")


def _prefixes(parameter: str) -> Iterator[str]:
    """A parameter's name and those of the modules that it is in, the longest first."""
    while parameter:
        yield parameter
        parameter = parameter.rpartition(".")[0]


def apply_plan(network: nn.Module, plan: FreezingPlan, epoch: int) -> bool:
    """Bring `requires_grad` of every parameter and the mode of every frozen module to what the plan says.

    Args:
        network: Changed in place. Modules that are not frozen keep their mode.
        plan: The plan.
        epoch: From 0.

    Returns:
        Whether any parameter began or ceased to train.
    """
    changed = False
    if epoch and not plan.changes:
        return changed
    for name, parameter in network.named_parameters():
        trains = plan.trains(name, epoch)
        changed |= parameter.requires_grad != trains
        parameter.requires_grad_(trains)
    keep_frozen_in_eval(network)
    return changed


def keep_frozen_in_eval(network: nn.Module) -> None:
    """Put what is frozen into eval mode: every module all of whose parameters are.

    A module without parameters belongs to what stands before it: in a part (a child of the network)
    that is frozen as far as some layer, everything up to that layer is frozen, dropout and
    statistics of a BatchNorm without weights included.
    """
    for part in network.children():
        trained = {parameter.requires_grad for parameter in part.parameters()}
        if trained == {True}:
            continue
        if trained == {False}:
            part.eval()
            continue
        begun = False
        for module in part.modules():
            parameters = list(module.parameters())
            if not any(parameter.requires_grad for parameter in parameters) and (
                parameters or not begun
            ):
                module.eval()
            begun |= any(parameter.requires_grad for parameter in module.parameters(recurse=False))
