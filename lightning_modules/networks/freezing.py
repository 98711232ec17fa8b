"""Which parameters train at which epoch: a pure function of a plan and the epoch.

Nothing is accumulated, so a resumed run, a validation pass or a wrapped model cannot bring it out of step. What is frozen
has `requires_grad=False` and is in eval mode: dropout off, BatchNorm statistics still.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from difflib import get_close_matches

from torch import nn


class FreezingError(ValueError):
    """A freezing plan names something that the network does not have."""

    is_for_the_user = True


@dataclass(frozen=True)
class FreezingPlan:
    """From which epoch on each part of a network trains.

    Attributes:
        starts: Name of a module or parameter -> first epoch in which it trains, from 0; None is never. The longest
            name that is a parameter's prefix decides; what no name covers trains from epoch 0.
    """

    starts: Mapping[str, int | None] = field(default_factory=dict)

    def first_epoch(self, parameter: str) -> int | None:
        """The epoch from which a parameter trains; None for never."""
        covering = [name for name in self.starts if parameter == name or parameter.startswith(f"{name}.")]
        return self.starts[max(covering, key=len)] if covering else 0

    def trains(self, parameter: str, epoch: int) -> bool:
        """Whether a parameter trains in an epoch."""
        first = self.first_epoch(parameter)
        return first is not None and epoch >= first

    def check(self, network: nn.Module) -> None:
        """Raise `FreezingError` where a name matches nothing in the network."""
        known = [name for name, _ in network.named_modules() if name] + [name for name, _ in network.named_parameters()]
        for name in self.starts:
            if name not in known:
                near = get_close_matches(name, known, n=3, cutoff=0.4) or known[:3]
                msg = f"no layer is called '{name}'; the nearest are {', '.join(near)}"
                raise FreezingError(msg)


def apply_plan(network: nn.Module, plan: FreezingPlan, epoch: int) -> None:
    """Bring `requires_grad` of every parameter and the mode of every frozen module to what the plan says.

    Args:
        network: Changed in place. Modules that are not wholly frozen keep their mode.
        plan: The plan.
        epoch: From 0.
    """
    for name, parameter in network.named_parameters():
        parameter.requires_grad_(plan.trains(name, epoch))
    keep_frozen_in_eval(network)


def keep_frozen_in_eval(network: nn.Module) -> None:
    """Put every module whose parameters are all frozen into eval mode, with all that it contains."""
    parameters = list(network.parameters())
    if parameters and not any(parameter.requires_grad for parameter in parameters):
        network.eval()
        return
    for child in network.children():
        keep_frozen_in_eval(child)
