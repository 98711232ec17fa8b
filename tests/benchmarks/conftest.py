"""Benchmarks of a small machine."""

import pytest

from benchmarks import machine


@pytest.fixture(autouse=True)
def _small_products(monkeypatch: pytest.MonkeyPatch) -> None:
    """What a machine can do at most is asked of small matrices and copies."""
    monkeypatch.setattr(machine, "_SIDES", {"cpu": (64,), "cuda": (64,)})
    monkeypatch.setattr(machine, "_COPIED", 2**16)
