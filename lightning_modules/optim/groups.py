"""Named groups of parameters for an optimizer."""

from collections.abc import Callable, Mapping
from typing import Any

from torch import nn


def parameter_groups(
    network: nn.Module,
    lrs: Mapping[str, float],
    weight_decay: float,
    group_of: Callable[[str], tuple[str, float]] = lambda _: ("", 1.0),
) -> list[dict[str, Any]]:
    """Sort all parameters, including frozen ones, into named groups.

    Weight decay does not apply to biases and to the gains of norms: parameters with fewer than two
    dimensions. It does not apply either to the parameters that a module lists in
    `no_weight_decay()`. timm's networks list tokens and position embeddings there.

    Args:
        network: A network that has a child module for each name in `lrs`.
        lrs: Child -> learning rate.
        weight_decay: Weight decay of the decayed groups.
        group_of: Parameter's name -> suffix of its group's name, and a factor on its learning rate.

    Returns:
        Non-empty groups, named `<child><suffix>` and `<child><suffix>_no_decay`.
    """
    groups: dict[str, dict[str, Any]] = {}
    undecayed = {
        f"{name}.{own}"
        for name, module in network.named_modules()
        if hasattr(module, "no_weight_decay")
        for own in module.no_weight_decay()
    }
    for child, lr in lrs.items():
        names = [f"{child}.{name}" for name, _ in network.get_submodule(child).named_parameters()]
        suffixes = dict(group_of(name) for name in names)
        for suffix, factor in suffixes.items():
            for kind, decay in (("", weight_decay), ("_no_decay", 0.0)):
                name = f"{child}{suffix}{kind}"
                groups[name] = {
                    "name": name,
                    "params": [],
                    "lr": lr * factor,
                    "weight_decay": decay,
                }
        for name in names:
            parameter, (suffix, _) = network.get_parameter(name), group_of(name)
            kind = "" if parameter.ndim > 1 and name not in undecayed else "_no_decay"
            groups[f"{child}{suffix}{kind}"]["params"].append(parameter)
    return [group for group in groups.values() if group["params"]]
