"""Honest timing: warmed up, alternating, each side measured in the same process."""

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
        seconds: One metric a repetition.
    """

    seconds: tuple[float, ...]

    @property
    def median(self) -> float:
        """Seconds."""
        return statistics.median(self.seconds)

    @property
    def spread(self) -> float:
        """From the fastest to the slowest, as a share of the median."""
        return (max(self.seconds) - min(self.seconds)) / self.median


def alternate(
    contenders: Mapping[str, Callable[[], object]], repetitions: int
) -> dict[str, Timing]:
    """Run every contender once for warmth, then all in turn, `repetitions` times.

    Args:
        contenders: Name -> the work, all of it the same.
        repetitions: Measurements of each.

    Returns:
        Name -> its times.
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
    """Seconds of a clock, once a GPU has done what it was given."""
    if _has_gpu():
        torch.cuda.synchronize()
    return time.perf_counter()


@cache
def _has_gpu() -> bool:
    """Asked once: under Lightning, torch asks the system each time, which takes a tenth of the step of a linear head."""
    return torch.cuda.is_available()


def as_torch_is() -> None:
    """Undo what a run of Thaw sets for the whole process: others do not ask for deterministic algorithms."""
    torch.use_deterministic_algorithms(mode=False)


def setting(*packages: str) -> str:
    """The hardware and the versions that metrics belong to."""
    info = Path("/proc/cpuinfo")
    lines = info.read_text(encoding="utf-8").splitlines() if info.is_file() else []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    versions = ", ".join(f"{name} {version(name)}" for name in packages)
    cpu = names[0] if names else platform.processor()
    unit = next((unit for unit, found in bfloat16_units().items() if found), "no bfloat16")
    gpu = f"{torch.cuda.get_device_name()}, " if torch.cuda.is_available() else ""
    return f"{gpu}{cpu} ({unit}), {torch.get_num_threads()} threads; Python {platform.python_version()}, {versions}"
