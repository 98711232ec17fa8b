"""Muon: momentum whose steps are orthogonal matrices, and plain momentum for what is no matrix."""

from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch import Tensor
from torch.optim import Optimizer

# Of the polynomial that each step of Newton and Schulz applies to the singular values: steep at 0, and near 1 after five steps.
_A, _B, _C = 3.4445, -4.7750, 2.0315
_TINY = 1e-7


class Muon(Optimizer):
    """Stochastic gradient descent with Nesterov's momentum whose steps on matrices are orthogonalised.

    Jordan et al., "Muon: An optimizer for hidden layers in neural networks" (2024, kellerjordan.github.io/posts/muon). Of a
    group with `orthogonal` every parameter is a matrix, a convolution's filters one row each: its step has singular values
    near 1 whatever the gradient's size, times the learning rate and, where it has more rows than columns, the root of their
    ratio. Weight decay there is apart from the gradient. Other groups are those of `torch.optim.SGD`.
    """

    def __init__(
        self, groups: Iterable[dict[str, Any]], lr: float = 1e-3, momentum: float = 0.95, weight_decay: float = 0.0
    ) -> None:
        """State the groups.

        Args:
            groups: Parameter groups; with `orthogonal` true, of parameters with two dimensions or more.
            lr: Of groups that state none.
            momentum: 0..1.
            weight_decay: Of groups that state none.

        Raises:
            ValueError: If an orthogonal group has a vector in it.
        """
        super().__init__(groups, {"lr": lr, "momentum": momentum, "weight_decay": weight_decay, "orthogonal": False})
        for group in self.param_groups:
            if group["orthogonal"] and any(parameter.ndim < 2 for parameter in group["params"]):  # noqa: PLR2004
                msg = "an orthogonal group has parameters that are no matrices"
                raise ValueError(msg)

    @torch.no_grad()
    def step(self, closure: Callable[[], float] | None = None) -> float | None:  # type: ignore[override]
        """Take a step; parameters without gradient stay."""
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        for group in self.param_groups:
            for parameter in group["params"]:
                if parameter.grad is not None:
                    self._move(parameter, parameter.grad, group)
        return loss

    def _move(self, parameter: Tensor, gradient: Tensor, group: dict[str, Any]) -> None:
        lr, decay, momentum = group["lr"], group["weight_decay"], group["momentum"]
        if group["orthogonal"]:
            parameter.mul_(1 - lr * decay)
        else:
            gradient = gradient.add(parameter, alpha=decay)
        buffer = self.state[parameter].get("momentum_buffer")
        if buffer is None:
            buffer = self.state[parameter]["momentum_buffer"] = torch.zeros_like(gradient)
        buffer.mul_(momentum).add_(gradient)
        step = gradient.add(buffer, alpha=momentum)
        if group["orthogonal"]:
            step = orthogonalised(step.flatten(1)).view(step.shape)
            lr *= max(1.0, len(parameter) / (parameter.numel() / len(parameter))) ** 0.5
        parameter.add_(step, alpha=-lr)


def orthogonalised(matrix: Tensor, steps: int = 5) -> Tensor:
    """The nearest matrix with orthonormal rows or columns, about: the singular vectors stay, the singular values go towards 1.

    Args:
        matrix: [M, N] of any size and scale.
        steps: Of Newton and Schulz's iteration, in bfloat16.

    Returns:
        [M, N] of the matrix's dtype. Singular values above a hundredth of the matrix's norm come to 0.6..1.3.
    """
    wide = matrix.shape[0] <= matrix.shape[1]
    x = (matrix if wide else matrix.t()).to(torch.bfloat16)
    x = x / x.norm().clamp(min=_TINY)  # no singular value is above 1
    for _ in range(steps):
        gram = x @ x.t()
        x = torch.addmm(x, torch.addmm(gram, gram, gram, beta=_B, alpha=_C), x, beta=_A)
    return (x if wide else x.t()).to(matrix.dtype)
