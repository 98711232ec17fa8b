"""What this machine can do at most, as measured: operations a second in a large matrix product."""

from collections.abc import Callable

import torch

from benchmarks.measuring import now

_SIDE = {"cpu": 4096, "cuda": 8192}
_TRIES = 5


def operations_per_second(dtype: torch.dtype, device: str = "cpu") -> float:
    """Floating-point operations a second, a multiplication and an addition counted as two, in a square matrix product."""
    side = _SIDE[device]
    a, b = (torch.randn(side, side, device=device).to(dtype) for _ in range(2))
    return 2 * side**3 / _fastest(lambda: a @ b)


def _fastest(work: Callable[[], object]) -> float:
    work()
    seconds = []
    for _ in range(_TRIES):
        start = now()
        work()
        seconds.append(now() - start)
    return min(seconds)
