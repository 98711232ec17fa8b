"""Names and depths of the layers of a backbone."""

from typing import Any, cast

from torch import nn

from lightning_modules.networks.freezing.plan import FreezingError, unknown_layer


def parameters_from(backbone: nn.Module, start_layer: str) -> list[str]:
    """Return the parameters of a layer and of all layers after it, in order of registration.

    Args:
        backbone: The network.
        start_layer: Name of a module or parameter.

    Returns:
        Names of parameters.

    Raises:
        FreezingError: If there is no layer of that name, or it has no parameters.
    """
    names = [name for name, _ in backbone.named_parameters()]
    first = next(
        (
            i
            for i, name in enumerate(names)
            if name == start_layer or name.startswith(f"{start_layer}.")
        ),
        None,
    )
    if first is None and start_layer in dict(backbone.named_modules()):
        msg = f"layer '{start_layer}' has no parameters; choose the next layer with parameters"
        raise FreezingError(msg)
    if not names:
        msg = f"received start layer '{start_layer}'; this backbone has no parameters at all"
        raise FreezingError(msg)
    if first is None:
        modules = [
            name
            for name, module in backbone.named_modules()
            if name and any(True for _ in module.parameters())
        ]
        raise unknown_layer(start_layer, modules + names)
    return names[first:]


def layer_numbers(backbone: nn.Module, *, coarse: bool = False) -> dict[str, int]:
    """Return the depth of each parameter, from 0 at the input.

    timm's networks define the order of their layers in `group_matcher`. In other networks, the
    layers are the entries of the longest list of modules. Parameters registered before that list
    have depth 0, those registered after it have the last depth.

    Args:
        backbone: The network.
        coarse: Whether to count stages in place of layers, for networks of timm.

    Returns:
        Name of parameter -> depth.
    """
    matcher = getattr(backbone, "group_matcher", None)
    if matcher is not None:
        import timm  # imported here, because it takes a second and text models do not need it

        grouped = timm.models.group_parameters(
            backbone, cast(Any, matcher(coarse=coarse)), reverse=True
        )
        return {name: int(number) for name, number in grouped.items()}
    lists = [
        (len(m), name)
        for name, m in backbone.named_modules()
        if isinstance(m, nn.ModuleList | nn.Sequential)
    ]
    length, longest = max(lists, default=(0, ""))
    numbers, depth = {}, 0
    for name, _ in backbone.named_parameters():
        if longest and name.startswith(f"{longest}."):
            depth = 1 + int(name.removeprefix(f"{longest}.").partition(".")[0])
        elif depth:
            depth = length + 1
        numbers[name] = depth
    return numbers
