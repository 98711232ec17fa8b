"""Peak memory of a piece of work, on a CPU as the operating system counts it."""

import ctypes
import gc
from collections.abc import Callable
from pathlib import Path

import torch

_STATUS, _RESET = Path("/proc/self/status"), Path("/proc/self/clear_refs")
_PEAK = "5"  # what sets the peak back to what is resident now


def peak_memory(work: Callable[[], object], device: torch.device) -> int:
    """Bytes that a piece of work takes at its peak, on top of what was held before.

    Args:
        work: Run once.
        device: Where it computes. On a CPU the resident memory of this process is looked at, which
            needs Linux.

    Returns:
        Bytes.
    """
    gc.collect()
    if device.type == "cuda":
        torch.cuda.synchronize(device)
        torch.cuda.reset_peak_memory_stats(device)
        before = torch.cuda.memory_allocated(device)
        work()
        torch.cuda.synchronize(device)
        return torch.cuda.max_memory_allocated(device) - before
    _give_back_what_is_free()
    _RESET.write_text(_PEAK)
    before = _resident("VmRSS")
    work()
    return _resident("VmHWM") - before


def _give_back_what_is_free() -> None:
    """Have the allocator hand freed memory to the system: work that finds room in it would seem to take none."""
    libc = ctypes.CDLL(None)
    if hasattr(libc, "malloc_trim"):  # glibc's
        libc.malloc_trim(0)


def _resident(name: str) -> int:
    line = next(line for line in _STATUS.read_text().splitlines() if line.startswith(f"{name}:"))
    return int(line.split()[1]) * 1024
