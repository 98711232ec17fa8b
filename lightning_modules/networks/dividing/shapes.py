"""Shapes of the outputs of modules, as functions of the sizes of the input of a network."""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from lightning_modules.networks.dividing.errors import CannotDivideError

# Sizes of an input: the number of samples, and of tokens if there are any.
Sizes = tuple[int, ...]


@dataclass(frozen=True)
class Shape:
    """A tensor's shape as a function of the sizes of the input.

    Attributes:
        factors: For each dimension, a factor and the indices of the sizes that multiply it.
    """

    factors: tuple[tuple[int, tuple[int, ...]], ...]

    def of(self, sizes: Sizes) -> list[int]:
        """Return the shape for an input of these sizes."""
        return [factor * math.prod(sizes[i] for i in chosen) for factor, chosen in self.factors]


class _Unknown:
    """An output that is no tensor, and differs between trials or is not a plain value."""


def shapes_of(output: Any) -> Any:  # noqa: ANN401 - a nested output
    """Return a nested output with shapes in place of tensors."""
    if isinstance(output, Tensor):
        return output.shape if output.is_floating_point() else _Unknown()
    if isinstance(output, dict):
        return {key: shapes_of(value) for key, value in output.items()}
    if isinstance(output, list | tuple):
        shapes = [shapes_of(value) for value in output]
        return shapes if isinstance(output, list) else tuple(shapes)
    return output if output is None or isinstance(output, bool | int | str) else _Unknown()


def fitted(outputs: Sequence[Any], sizes: Sequence[Sizes], name: str) -> Any:  # noqa: ANN401 - a nested output
    """Return a nested output with a `Shape` for each tensor, from the outputs of all trials.

    Args:
        outputs: What `shapes_of` returned for the output of each trial.
        sizes: The sizes of the input of each trial.
        name: The module, for the error.

    Raises:
        CannotDivideError: If a shape depends on the sizes in an unknown way.
    """
    first = outputs[0]
    if isinstance(first, torch.Size):
        return Shape(tuple(_factor(dims, sizes, name) for dims in zip(*outputs, strict=True)))
    if isinstance(first, dict):
        return {key: fitted([o[key] for o in outputs], sizes, name) for key in first}
    if isinstance(first, list | tuple):
        return type(first)(fitted(each, sizes, name) for each in zip(*outputs, strict=True))
    return first if all(output == first for output in outputs) else _Unknown()


def built(shape: Any, sizes: Sizes, make: Callable[[list[int]], Tensor]) -> Any:  # noqa: ANN401 - a nested output
    """Return a nested output for an input of these sizes; `make` returns a tensor of a shape."""
    if isinstance(shape, Shape):
        return make(shape.of(sizes))
    if isinstance(shape, dict):
        return {key: built(value, sizes, make) for key, value in shape.items()}
    if isinstance(shape, list | tuple):
        return type(shape)(built(value, sizes, make) for value in shape)
    return shape


def _factor(dims: Sequence[int], sizes: Sequence[Sizes], name: str) -> tuple[int, tuple[int, ...]]:
    """Return the factor and the sizes whose product is a dimension in all trials."""
    count = len(sizes[0])
    for chosen in [(), *((i,) for i in range(count)), tuple(range(count))]:
        products = [math.prod(each[i] for i in chosen) for each in sizes]
        factor = dims[0] // products[0]
        if all(factor * product == dim for product, dim in zip(products, dims, strict=True)):
            return factor, chosen
    msg = f"the shape of the output of {name} depends on the input in an unknown way"
    raise CannotDivideError(msg)
