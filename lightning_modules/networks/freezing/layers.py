"""The layers of a backbone by name and by depth."""

from typing import Any, cast

from torch import nn

from lightning_modules.networks.freezing.plan import FreezingError, unknown_layer


def parameters_from(backbone: nn.Module, start_layer: str) -> list[str]:
    """The parameters of a layer and all that come after it, in the order in which they are registered.

    Args:
        backbone: The network.
        start_layer: Name of a module or parameter.

    Returns:
        Names of parameters.

    Raises:
        FreezingError: If no layer is called so, or it has no parameters.
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
        msg = f"layer '{start_layer}' has no parameters; name the next one that has"
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


def layer_numbers(backbone: nn.Module) -> dict[str, int]:
    """The depth of each parameter, from 0 at the input.

    Args:
        backbone: A network of timm tells the order by its `group_matcher`. In any other the layers
            are the entries of its longest list of modules; what is registered before belongs to
            depth 0, what is registered behind to the last.

    Returns:
        Parameter -> depth.
    """
    matcher = getattr(backbone, "group_matcher", None)
    if matcher is not None:
        import timm  # takes a second, and texts do without

        grouped = timm.models.group_parameters(
            backbone, cast(Any, matcher(coarse=False)), reverse=True
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
