"""Small peak-rate measurements for the tests of the benchmarks."""

import pytest

from benchmarks import machine


@pytest.fixture(autouse=True)
def _small_peak_rate_measurements(monkeypatch: pytest.MonkeyPatch) -> None:
    """Measure the machine's peak rates with small matrices and copies."""
    monkeypatch.setattr(machine, "_SIDES", {"cpu": (64,), "cuda": (64,)})
    monkeypatch.setattr(machine, "_COPIED", 2**16)
