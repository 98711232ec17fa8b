"""The measured peak rates of this machine, in large matrix products and in copies."""

from collections.abc import Callable
from functools import partial

import torch

from benchmarks.measuring import now

# Device -> sides of the square matrices.
_SIDES = {"cpu": (1024, 2048, 4096), "cuda": (4096, 8192)}
_COPIED = 2**28  # bytes
_TRIES = 8


def operations_per_second(dtype: torch.dtype, device: str = "cpu") -> float:
    """Return the peak rate of matrix products, in floating-point operations per second.

    A multiplication and an addition are two operations.
    """
    rates = []
    for side in _SIDES[device]:
        a, b = (torch.randn(side, side, device=device).to(dtype) for _ in range(2))
        rates.append(2 * side**3 / _fastest(partial(torch.matmul, a, b)))
    return max(rates)


def bytes_per_second(device: str = "cpu") -> float:
    """Return the peak rate of a copy, in bytes read and written per second."""
    source = torch.zeros(_COPIED, dtype=torch.uint8, device=device)
    return 2 * _COPIED / _fastest(partial(torch.empty_like(source).copy_, source))


def _fastest(work: Callable[[], object]) -> float:
    work()
    seconds = []
    for _ in range(_TRIES):
        start = now()
        work()
        seconds.append(now() - start)
    return min(seconds)
