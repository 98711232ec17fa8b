"""Where a run came from: code, packages, hardware, data."""

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
    """Collect what `provenance.json` holds.

    Args:
        seed: The run's seed.
        data: What the datamodule says of its splits.
        packages: Those whose versions matter.
        threads: On which the CPU computes.
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

    def ask(*words: str) -> str | None:
        try:
            done = subprocess.run(  # noqa: S603
                ["git", "-C", str(root), *words],  # noqa: S607
                capture_output=True,
                text=True,
                timeout=10,
                check=True,
            )
        except (OSError, subprocess.SubprocessError):
            return None
        return done.stdout.strip()

    changes = ask("status", "--porcelain")
    return {"commit": ask("rev-parse", "HEAD"), "dirty": None if changes is None else bool(changes)}


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
    found = (
        re.search(r"model name\s*:\s*(.+)", info.read_text(encoding="utf-8"))
        if info.is_file()
        else None
    )
    pages = (
        os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") if hasattr(os, "sysconf") else 0
    )
    return {
        "system": platform.platform(),
        "cpu": found[1] if found else platform.processor(),
        "cpu_count": os.cpu_count(),
        "threads": threads,
        "memory_gib": round(pages / 2**30, 1),
        "gpus": gpus,
    }
