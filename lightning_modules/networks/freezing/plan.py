"""Freezing plans: which parameters train at which epoch.

The result is a pure function of the plan and the epoch. It has no state, so it stays correct after
a resume, after a validation pass and with a wrapped model. Frozen parameters have
`requires_grad=False`. Frozen modules are in eval mode: dropout is off, BatchNorm statistics are
fixed.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field

from torch import nn

from run_folders.errors import UserError, near_names


class FreezingError(UserError, ValueError):
    """A freezing plan names a layer that the network does not have, or contradicts itself."""


@dataclass(frozen=True)
class FreezingPlan:
    """The first epoch in which each part of a network trains.

    `starts` and `groups` apply to all parameters below a name; the longest matching name wins.

    Attributes:
        starts: Name of a module or parameter -> first epoch in which it trains, from 0; None means
            never. Parameters without a matching name train from epoch 0.
        groups: Name of a module or parameter -> suffix of its parameter group, and a factor on its
            learning rate. Parameters without a matching name have "" and 1.
        stages: First epoch of each stage -> first layer of the backbone that trains; only for
            display.
    """

    starts: Mapping[str, int | None] = field(default_factory=dict)
    groups: Mapping[str, tuple[str, float]] = field(default_factory=dict)
    stages: Mapping[int, str | None] = field(default_factory=dict)

    def first_epoch(self, parameter: str) -> int | None:
        """Return the first epoch in which a parameter trains; None for never."""
        return next((self.starts[name] for name in _prefixes(parameter) if name in self.starts), 0)

    def group(self, parameter: str) -> tuple[str, float]:
        """Return the suffix of a parameter's group, and the factor on its learning rate."""
        return next(
            (self.groups[name] for name in _prefixes(parameter) if name in self.groups), ("", 1.0)
        )

    def trains(self, parameter: str, epoch: int) -> bool:
        """Return whether a parameter trains in an epoch."""
        first = self.first_epoch(parameter)
        return first is not None and first <= epoch

    @property
    def changes(self) -> bool:
        """Whether any later epoch differs from the first one."""
        return any(self.starts.values())

    def check(self, network: nn.Module) -> None:
        """Check that all names of the plan exist in the network.

        Raises:
            FreezingError: If a name is not a module or parameter of the network.
        """
        known = [name for name, _ in network.named_modules() if name] + [
            name for name, _ in network.named_parameters()
        ]
        for name in (*self.starts, *self.groups):
            if name not in known:
                raise unknown_layer(name, known)


def unknown_layer(name: str, known: list[str]) -> FreezingError:
    """Return the error for a layer that does not exist."""
    near = near_names(name, known, cutoff=0.4) or known[:3]
    return FreezingError(f"no layer is called '{name}'; the nearest are {', '.join(near)}")


def _prefixes(parameter: str) -> Iterator[str]:
    """Yield a parameter's name and the names of its parent modules, the longest first."""
    while parameter:
        yield parameter
        parameter = parameter.rpartition(".")[0]


def apply_plan(network: nn.Module, plan: FreezingPlan, epoch: int) -> bool:
    """Set `requires_grad` of all parameters for an epoch, and put frozen modules into eval mode.

    Args:
        network: The network, changed in place. Modules that are not frozen keep their mode.
        plan: The plan.
        epoch: The epoch, from 0.

    Returns:
        Whether `requires_grad` of any parameter changed.
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
    """Put all frozen modules into eval mode: those whose parameters are all frozen.

    A module without parameters, such as dropout or BatchNorm without weights, has no parameter to
    decide by. In a partly frozen child of the network, such modules are frozen if they come before
    the first trainable parameter.
    """
    for part in network.children():
        trainable = {parameter.requires_grad for parameter in part.parameters()}
        if trainable == {True}:
            continue
        if trainable == {False}:
            part.eval()
            continue
        found_trainable = False
        for module in part.modules():
            parameters = list(module.parameters())
            if not any(parameter.requires_grad for parameter in parameters) and (
                parameters or not found_trainable
            ):
                module.eval()
            found_trainable |= any(
                parameter.requires_grad for parameter in module.parameters(recurse=False)
            )
