"""Splitting a network into a prefix that never trains and a suffix.

The output of the prefix is computed once and stored. A cut is a pure function of the network and
its freezing plan. It does not change the network's modules, names or state.
"""

from dataclasses import dataclass
from typing import Any, cast

from torch import Tensor, nn

from lightning_modules.networks.backbones.divided_encoder import DividedEncoder
from lightning_modules.networks.backbones.features import FEATURES, MODEL, Features
from lightning_modules.networks.dividing.errors import CannotDivideError
from lightning_modules.networks.dividing.recording import Record
from lightning_modules.networks.dividing.two_parts import PrefixCost, TwoParts
from lightning_modules.networks.freezing.plan import FreezingPlan
from run_folders.errors import brief


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

    def cost(self, features: Any) -> PrefixCost | None:  # noqa: ANN401 - an encoder
        """Return what the prefix computes; None if it is all of `features`."""
        return None if self.layer is None else cast(PrefixCost, features.prefix_cost(self.layer))

    def tensors(self, features: nn.Module) -> dict[str, Tensor]:
        """Return the weights and buffers that the prefix depends on, by name."""
        tensors = {**dict(features.named_parameters()), **dict(features.named_buffers())}
        if self.layer is None:
            return tensors
        later = tuple(f"{MODEL}.{name}." for name in cast(Any, features).parts(self.layer).later)
        return {name: tensor for name, tensor in tensors.items() if not name.startswith(later)}


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
    kind = type(features.get_submodule(MODEL)).__name__
    owners = {name.removeprefix(f"{MODEL}.").rpartition(".")[0] for name in trained}
    if not isinstance(features, DividedEncoder):
        start = trained[0].removeprefix(f"{MODEL}.")
        return f"{kind} trains from {start} on, but cannot be run from an intermediate layer"
    if "" in owners:
        name = next(name.removeprefix(f"{MODEL}.") for name in trained if name.count(".") == 1)
        return f"{name} trains, and it comes before all layers"
    try:
        recorded = features.record()
    except Exception as error:  # an own network may not run on other inputs than its data
        return f"{kind} does not run on random inputs ({brief(error)})"
    order = recorded.layers(features.get_submodule(MODEL))
    first = next((name for name in order if name in owners), None)
    if first is None:
        return f"{kind} does not run {trained[0].removeprefix(f'{MODEL}.')}"
    found = _cut_before(first, features, recorded)
    if isinstance(found, str):
        return f"{kind} trains from {first} on, and {found}"
    if not found.parameters_before:
        return f"the backbone trains from its first layer, {first}, on"
    return Cut(found.layer)


def _cut_before(first: str, features: DividedEncoder, recorded: Record) -> TwoParts | str:
    """Return the last possible parts before a layer, or the reason why there are none.

    A cut may have to be before a module that contains the layer, because of connections that skip
    layers. Of cuts at the same place, the outermost module names it.
    """
    found, reason = None, f"{first} does not run by itself"
    layer = first
    while layer:
        if layer in recorded.calls[0]:
            try:
                parts = features.parts(layer, recorded)
            except CannotDivideError as error:
                reason = str(error)
            else:
                if found is not None and parts.parameters_before < found.parameters_before:
                    break
                found = parts
        layer = layer.rpartition(".")[0]
    return reason if found is None else found
