"""Where a network can be cut into a part that never trains, computed once, and the rest.

A cut is a pure function of the network and its freezing plan. The network itself stays as it is:
its modules, names and state.
"""

from dataclasses import dataclass
from typing import Any, cast

from torch import Tensor, nn

from lightning_modules.networks.backbones.features import Features, starting_at
from lightning_modules.networks.freezing.plan import FreezingPlan


@dataclass(frozen=True)
class Cut:
    """What comes before it is computed once.

    Attributes:
        layer: The first layer behind the cut, as the backbone calls it; None where only the head is
            behind it.
    """

    layer: str | None = None

    def __str__(self) -> str:
        return "the whole backbone" if self.layer is None else f"the backbone before {self.layer}"

    def prefix(self, features: Any, batch: Any) -> Features:  # noqa: ANN401 - an encoder, and its own batch type
        """What the frozen part gives for a batch: pooled vectors, token states, or the input of a layer."""
        if self.layer is None:
            return cast(Features, features(batch))
        return cast(Features, features.forward_until(self.layer, batch))

    def suffix(self, features: Any, state: Features) -> Features:  # noqa: ANN401 - an encoder
        """What the whole of `features` would give, from what `prefix` returned."""
        if self.layer is None:
            return state
        return cast(Features, features.forward_from(self.layer, state))

    def tensors(self, features: nn.Module) -> dict[str, Tensor]:
        """Weights and buffers that what comes before the cut depends on, by name."""
        tensors = {**dict(features.named_parameters()), **dict(features.named_buffers())}
        if self.layer is None:
            return tensors
        backbone = features.get_submodule("model")
        listed, _, first = self.layer.rpartition(".")
        later = [
            f"model.{listed}.{name}." for name in starting_at(_children(backbone, listed), first)
        ]
        later += [
            f"model.{name}." for name in starting_at(dict(backbone.named_children()), listed)[1:]
        ]
        return {
            name: tensor for name, tensor in tensors.items() if not name.startswith(tuple(later))
        }


def find_cut(network: nn.Module, plan: FreezingPlan) -> Cut | str:
    """Find the last place before anything that ever trains.

    Args:
        network: `head(features(batch))`.
        plan: From which epoch on each parameter trains.

    Returns:
        The cut, or why there is none; the reason is empty where nothing is frozen for good.
    """
    features = network.get_submodule("features")
    names = [name for name, _ in features.named_parameters()]
    trained = [name for name in names if plan.first_epoch(f"features.{name}") is not None]
    if len(trained) == len(names):
        return ""
    if not trained:
        return Cut()
    listed: str | None = getattr(features, "listed", None)  # `ImageEncoder` has it
    if listed is None:
        kind = type(features.get_submodule("model")).__name__
        return f"{kind} trains from {trained[0].removeprefix('model.')} on, and it cannot be run from a layer in its middle on"
    children = list(_children(features.get_submodule("model"), listed))
    for name in trained:
        if (
            not name.startswith(f"model.{listed}.")
            and name in names[: _first_of(names, f"model.{listed}.")]
        ):
            return f"{name.removeprefix('model.')} trains, and it comes before all layers"
    reached = [name.split(".")[2] for name in trained if name.startswith(f"model.{listed}.")]
    start = min((children.index(child) for child in reached), default=len(children) - 1)
    if start == 0:
        return f"the backbone trains from its first layer, {listed}.{children[0]}, on"
    return Cut(f"{listed}.{children[start]}")


def _first_of(names: list[str], prefix: str) -> int:
    return next((i for i, name in enumerate(names) if name.startswith(prefix)), len(names))


def _children(model: nn.Module, listed: str) -> dict[str, nn.Module]:
    return dict(model.get_submodule(listed).named_children())
