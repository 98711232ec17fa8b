"""Where a run came from: code, packages, hardware, data."""

import os
import platform
import re
import subprocess
from importlib import metadata
from pathlib import Path
from typing import Any

import torch

_PACKAGES = ("thaw", "torch", "lightning", "torchmetrics", "transformers", "tokenizers", "hydra-core", "numpy", "pandas")


def provenance(seed: int, data: dict[str, Any]) -> dict[str, Any]:
    """Collect what `provenance.json` holds.

    Args:
        seed: The run's seed.
        data: What the datamodule says of its splits.

    Returns:
        git, versions, hardware, seed and data.
    """
    return {"git": _git(), "versions": _versions(), "hardware": _hardware(), "seed": seed, "data": data}


def _git() -> dict[str, Any]:
    root = Path(__file__).resolve().parent.parent

    def ask(*words: str) -> str | None:
        try:
            done = subprocess.run(["git", "-C", str(root), *words], capture_output=True, text=True, timeout=10, check=True)  # noqa: S603, S607
        except (OSError, subprocess.SubprocessError):
            return None
        return done.stdout.strip()

    changes = ask("status", "--porcelain")
    return {"commit": ask("rev-parse", "HEAD"), "dirty": None if changes is None else bool(changes)}


def _versions() -> dict[str, str]:
    versions = {"python": platform.python_version()}
    for name in _PACKAGES:
        try:
            versions[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            versions[name] = "not installed"
    return versions


def _hardware() -> dict[str, Any]:
    info = Path("/proc/cpuinfo")
    found = re.search(r"model name\s*:\s*(.+)", info.read_text(encoding="utf-8")) if info.is_file() else None
    gpus = [torch.cuda.get_device_name(i) for i in range(torch.cuda.device_count())]
    pages = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") if hasattr(os, "sysconf") else 0
    return {
        "system": platform.platform(),
        "cpu": found[1] if found else platform.processor(),
        "cpu_count": os.cpu_count(),
        "threads": torch.get_num_threads(),
        "memory_gib": round(pages / 2**30, 1),
        "gpus": gpus,
    }
