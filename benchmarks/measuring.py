"""Timing with warm-up, in alternation, all sides in the same process."""

import platform
import statistics
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cache
from importlib.metadata import version
from pathlib import Path

import torch

from engine.config.precision import bfloat16_units


@dataclass(frozen=True)
class Timing:
    """Repeated measurements of one piece of work.

    Attributes:
        seconds: One value per repetition.
    """

    seconds: tuple[float, ...]

    @property
    def median(self) -> float:
        """The median in seconds."""
        return statistics.median(self.seconds)

    @property
    def spread(self) -> float:
        """The difference of the slowest and the fastest, as a share of the median."""
        return (max(self.seconds) - min(self.seconds)) / self.median


def alternate(
    contenders: Mapping[str, Callable[[], object]], repetitions: int
) -> dict[str, Timing]:
    """Run every contender once as warm-up, then all in turn, `repetitions` times.

    Args:
        contenders: Name -> function that does the work; all do the same work.
        repetitions: Number of measurements of each contender.

    Returns:
        Name -> timing.
    """
    for work in contenders.values():
        work()
    seconds: dict[str, list[float]] = {name: [] for name in contenders}
    for _ in range(repetitions):
        for name, work in contenders.items():
            start = now()
            work()
            seconds[name].append(now() - start)
    return {name: Timing(tuple(values)) for name, values in seconds.items()}


def now() -> float:
    """Return the seconds of a clock, after the GPU, if there is one, has finished its work."""
    if _has_gpu():
        torch.cuda.synchronize()
    return time.perf_counter()


@cache
def _has_gpu() -> bool:
    # Cached: under Lightning, torch asks the system each time. That takes a tenth of the step of a
    # linear head.
    return torch.cuda.is_available()


def allow_nondeterminism() -> None:
    """Turn off deterministic algorithms.

    Thaw turns them on for the whole process; the baselines do not use them.
    """
    torch.use_deterministic_algorithms(mode=False)


def setting(*packages: str) -> str:
    """Return a line with the hardware and the versions of Python and of packages."""
    info = Path("/proc/cpuinfo")
    lines = info.read_text(encoding="utf-8").splitlines() if info.is_file() else []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    versions = ", ".join(f"{name} {version(name)}" for name in packages)
    cpu = names[0] if names else platform.processor()
    unit = next((unit for unit, found in bfloat16_units().items() if found), "no bfloat16")
    gpu = f"{torch.cuda.get_device_name()}, " if torch.cuda.is_available() else ""
    hardware = f"{gpu}{cpu} ({unit}), {torch.get_num_threads()} threads"
    return f"{hardware}; Python {platform.python_version()}, {versions}"
