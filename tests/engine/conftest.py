"""Fixtures of the tests of runs and sweeps."""

import logging
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.conftest import Ended

RunSweep = Callable[..., Ended]


@pytest.fixture
def sweep(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> RunSweep:
    """Call `train.main()` with `-m`; the sweep's folder is `tmp_path/sweep` unless overridden."""
    import train as entry

    def call(*overrides: str) -> Ended:
        own = (
            []
            if any(
                override.startswith(("sweep.resume=", "hydra.sweep.dir=")) for override in overrides
            )
            else ["hydra.sweep.dir=sweep"]
        )
        with monkeypatch.context() as patch:
            patch.chdir(tmp_path)
            patch.setattr(sys, "argv", ["train.py", "-m", *overrides, *own])
            capsys.readouterr()
            handlers = logging.getLogger().handlers.copy()
            code = entry.main()
            # Hydra's handlers write to this test's stderr, which is closed later.
            logging.getLogger().handlers[:] = handlers
        captured = capsys.readouterr()
        return Ended(code, captured.out, captured.err, tmp_path / "sweep")

    return call
