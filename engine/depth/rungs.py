"""The rungs of a ladder."""

from collections.abc import Sequence
from dataclasses import dataclass

from lightning_modules.networks.freezing.blocks import Block

HEAD, ALL = "head", "all"


@dataclass(frozen=True)
class Rung:
    """How much of the backbone trains.

    Attributes:
        name: `head`, the number of last blocks, or `all`.
        start_layer: First layer that trains; None for the head alone, `all` for the whole backbone.
    """

    name: str
    start_layer: str | None


def rungs_of(blocks: Sequence[Block]) -> list[Rung]:
    """Return the rungs: head, last block, last two, four, ... and the whole backbone."""
    found, count = [Rung(HEAD, None)], 1
    while count < len(blocks):
        found.append(Rung(str(count), blocks[-count].layer))
        count *= 2
    return [*found, Rung(ALL, ALL)]
