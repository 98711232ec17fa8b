"""Peak memory of a piece of work, on a CPU as the operating system counts it."""

import ctypes
import gc
from collections.abc import Callable
from pathlib import Path

import torch

_STATUS, _RESET = Path("/proc/self/status"), Path("/proc/self/clear_refs")
_PEAK = "5"  # resets the peak to the memory that is resident now


def peak_memory(work: Callable[[], object], device: torch.device) -> int:
    """Return the peak memory of a piece of work, on top of the memory in use before.

    Args:
        work: The function to measure; it runs once.
        device: Device of the work. On a CPU the resident memory of this process is read, which
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
    _trim_heap()
    _RESET.write_text(_PEAK)
    before = _resident("VmRSS")
    work()
    return _resident("VmHWM") - before


def _trim_heap() -> None:
    """Return freed memory to the system; work that reuses it would seem to need none."""
    libc = ctypes.CDLL(None)
    if hasattr(libc, "malloc_trim"):  # glibc only
        libc.malloc_trim(0)


def _resident(name: str) -> int:
    line = next(line for line in _STATUS.read_text().splitlines() if line.startswith(f"{name}:"))
    return int(line.split()[1]) * 1024
