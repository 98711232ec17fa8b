"""The blocks of a backbone: the units in which it is probed and unfrozen."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from torch import nn

from lightning_modules.networks.dividing.recording import Record
from lightning_modules.networks.freezing.layers import layer_numbers


@dataclass(frozen=True)
class Block:
    """A block: its first layer, and all parameters up to the next block.

    Attributes:
        layer: Name of its first layer in the backbone.
        parameters: Number of its parameters.
    """

    layer: str
    parameters: int


def blocks_of(backbone: nn.Module, recorded: Record) -> list[Block]:
    """Return the blocks after the input layers, in the order in which they run.

    A block is a layer of `layer_numbers` with at least one matrix. Layers without one, such as a
    last norm, belong to the block before them. So do layers that are no module that runs once on a
    tensor, and layers that run in another order than they are registered. If no layer is one, the
    blocks are stages.

    Args:
        backbone: The network.
        recorded: What `recording.record` returned for it.
    """
    return _blocks(backbone, recorded, layer_numbers(backbone)) or _blocks(
        backbone, recorded, layer_numbers(backbone, coarse=True)
    )


def _blocks(backbone: nn.Module, recorded: Record, numbers: Mapping[str, int]) -> list[Block]:
    parameters = dict(backbone.named_parameters())
    groups: dict[int, list[str]] = {}
    for name, number in sorted(numbers.items(), key=lambda item: item[1]):
        groups.setdefault(number, []).append(name)
    order, calls = recorded.layers(backbone), recorded.calls[0]
    places = {name: place for place, name in enumerate(parameters)}
    found: list[Block] = []
    last = -1
    for names in list(groups.values())[1:]:
        count = sum(parameters[name].numel() for name in names)
        layer = _first_layer(backbone, names, order, recorded)
        vectors = all(parameters[name].ndim < 2 for name in names)  # noqa: PLR2004
        place = min(places[name] for name in names)
        ordered = not found or (
            layer is not None and calls[found[-1].layer].last < calls[layer].first and place > last
        )
        if layer is not None and ordered and not vectors:
            last = place
            found.append(Block(layer, count))
        elif found:
            found[-1] = Block(found[-1].layer, found[-1].parameters + count)
    return found


def _first_layer(
    backbone: nn.Module, names: Sequence[str], order: Sequence[str], recorded: Record
) -> str | None:
    """Return the outermost module that runs once, first of its group, and is inside of it."""
    owners, own = {name.rpartition(".")[0] for name in names}, set(names)
    first = next((layer for layer in order if layer in owners), None)
    inside = [
        layer
        for layer in _ancestors(first or "")
        if recorded.has_one_input(layer)
        and all(
            f"{layer}.{name}" in own for name, _ in backbone.get_submodule(layer).named_parameters()
        )
    ]
    return inside[-1] if inside else None


def _ancestors(layer: str) -> Iterator[str]:
    """Yield a layer and the modules around it, without the network itself."""
    while layer:
        yield layer
        layer = layer.rpartition(".")[0]
