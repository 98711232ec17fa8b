"""Record the code, packages, hardware and data of a run."""

import os
import platform
import re
import subprocess
from collections.abc import Sequence
from importlib import metadata
from pathlib import Path
from typing import Any


def provenance(
    seed: int, data: dict[str, Any], packages: Sequence[str], threads: int | None, gpus: list[str]
) -> dict[str, Any]:
    """Collect the content of `provenance.json`.

    Args:
        seed: The run's seed.
        data: The datamodule's description of its splits.
        packages: Names of the packages whose versions are recorded.
        threads: Number of threads that compute on the CPU.
        gpus: Names of the GPUs.

    Returns:
        git, versions, hardware, seed and data.
    """
    return {
        "git": _git(),
        "versions": _versions(packages),
        "hardware": _hardware(threads, gpus),
        "seed": seed,
        "data": data,
    }


def _git() -> dict[str, Any]:
    root = Path(__file__).resolve().parent.parent

    def git(*arguments: str) -> str | None:
        try:
            done = subprocess.run(  # noqa: S603
                ["git", "-C", str(root), *arguments],  # noqa: S607
                capture_output=True,
                text=True,
                timeout=10,
                check=True,
            )
        except (OSError, subprocess.SubprocessError):
            return None
        return done.stdout.strip()

    changes = git("status", "--porcelain")
    return {"commit": git("rev-parse", "HEAD"), "dirty": None if changes is None else bool(changes)}


def _versions(packages: Sequence[str]) -> dict[str, str]:
    versions = {"python": platform.python_version()}
    for name in packages:
        try:
            versions[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            versions[name] = "not installed"
    return versions


def _hardware(threads: int | None, gpus: list[str]) -> dict[str, Any]:
    info = Path("/proc/cpuinfo")
    model = (
        re.search(r"model name\s*:\s*(.+)", info.read_text(encoding="utf-8"))
        if info.is_file()
        else None
    )
    memory = (
        os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") if hasattr(os, "sysconf") else 0
    )
    return {
        "system": platform.platform(),
        "cpu": model[1] if model else platform.processor(),
        "cpu_count": os.cpu_count(),
        "threads": threads,
        "memory_gib": round(memory / 2**30, 1),
        "gpus": gpus,
    }
