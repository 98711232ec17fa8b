"""Splitting a network into a prefix that never trains and a suffix.

The output of the prefix is computed once and stored. A cut is a pure function of the network and
its freezing plan. It does not change the network's modules, names or state.
"""

from dataclasses import dataclass
from itertools import takewhile
from typing import Any, cast

from torch import Tensor, nn

from lightning_modules.networks.backbones.features import FEATURES, MODEL, Features, starting_at
from lightning_modules.networks.freezing.plan import FreezingPlan


@dataclass(frozen=True)
class Cut:
    """The position between the frozen prefix, which is computed once, and the suffix.

    Attributes:
        layer: Name of the first layer of the suffix in the backbone; None if the suffix is the head
            alone.
    """

    layer: str | None = None

    def __str__(self) -> str:
        return "the whole backbone" if self.layer is None else f"the backbone before {self.layer}"

    def prefix(self, features: Any, batch: Any) -> Features:  # noqa: ANN401 - an encoder, and its own batch type
        """Return the output of the frozen prefix for a batch.

        The output is pooled vectors, hidden states of tokens, or the input of a layer.
        """
        if self.layer is None:
            return cast(Features, features(batch))
        return cast(Features, features.forward_until(self.layer, batch))

    def suffix(self, features: Any, state: Features) -> Features:  # noqa: ANN401 - an encoder
        """Return the output of all of `features`, computed from the output of `prefix`."""
        if self.layer is None:
            return state
        return cast(Features, features.forward_from(self.layer, state))

    def tensors(self, features: nn.Module) -> dict[str, Tensor]:
        """Return the weights and buffers that the prefix depends on, by name."""
        tensors = {**dict(features.named_parameters()), **dict(features.named_buffers())}
        if self.layer is None:
            return tensors
        backbone = features.get_submodule(MODEL)
        blocks, _, first = self.layer.rpartition(".")
        later = [
            f"{MODEL}.{blocks}.{name}." for name in starting_at(_children(backbone, blocks), first)
        ]
        later += [
            f"{MODEL}.{name}." for name in starting_at(dict(backbone.named_children()), blocks)[1:]
        ]
        return {
            name: tensor for name, tensor in tensors.items() if not name.startswith(tuple(later))
        }


def find_cut(network: nn.Module, plan: FreezingPlan) -> Cut | str:
    """Find the last cut with no trained layer before it.

    Args:
        network: A network `head(features(batch))`.
        plan: The freezing plan.

    Returns:
        The cut, or the reason why there is none. The reason is empty if no parameter of `features`
        stays frozen.
    """
    features = network.get_submodule(FEATURES)
    names = [name for name, _ in features.named_parameters()]
    trained = [name for name in names if plan.first_epoch(f"{FEATURES}.{name}") is not None]
    if len(trained) == len(names):
        return ""
    if not trained:
        return Cut()
    blocks: str | None = getattr(features, "block_list", None)  # only `ImageEncoder` has it
    if blocks is None:
        kind = type(features.get_submodule(MODEL)).__name__
        start_name = trained[0].removeprefix(f"{MODEL}.")
        return f"{kind} trains from {start_name} on, but cannot be run from an intermediate layer"
    inside = f"{MODEL}.{blocks}."
    if trained[0] in takewhile(lambda name: not name.startswith(inside), names):
        name = trained[0].removeprefix(f"{MODEL}.")
        return f"{name} trains, and it comes before all layers"
    children = list(_children(features.get_submodule(MODEL), blocks))
    first = next((name for name in trained if name.startswith(inside)), None)
    # A cut is before a layer: if only parameters after the layers train, the last layer runs again.
    child = children[-1] if first is None else first.removeprefix(inside).partition(".")[0]
    if child == children[0]:
        return f"the backbone trains from its first layer, {blocks}.{child}, on"
    return Cut(f"{blocks}.{child}")


def _children(model: nn.Module, blocks: str) -> dict[str, nn.Module]:
    return dict(model.get_submodule(blocks).named_children())
