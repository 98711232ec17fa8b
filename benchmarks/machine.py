"""What this machine can do at most, as measured: operations a second in a large matrix product, bytes a second in a copy."""

from collections.abc import Callable

import torch

from benchmarks.measuring import now

_SIDE = {"cpu": 4096, "cuda": 8192}
_BYTES = {"cpu": 2**28, "cuda": 2**31}
_TRIES = 5


def operations_per_second(dtype: torch.dtype, device: str = "cpu") -> float:
    """Floating-point operations a second, a multiplication and an addition counted as two, in a square matrix product."""
    side = _SIDE[device]
    a, b = (torch.randn(side, side, device=device).to(dtype) for _ in range(2))
    return 2 * side**3 / _fastest(lambda: a @ b)


def bytes_per_second(device: str = "cpu") -> float:
    """Bytes read and written a second in a copy that no cache holds."""
    source = torch.empty(_BYTES[device], dtype=torch.uint8, device=device).fill_(1)
    target = torch.empty_like(source)
    return 2 * _BYTES[device] / _fastest(lambda: target.copy_(source))


def _fastest(work: Callable[[], object]) -> float:
    work()
    seconds = []
    for _ in range(_TRIES):
        start = now()
        work()
        seconds.append(now() - start)
    return min(seconds)
