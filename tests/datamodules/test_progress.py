"""Progress of long steps."""

import logging
import re

import pytest

from datamodules.reading import progress


class Clock:
    """A clock that moves on by one step a reading."""

    def __init__(self, step: float) -> None:
        self.now, self.step = 0.0, step

    def monotonic(self) -> float:
        self.now += self.step
        return self.now


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    clock = Clock(1.0)
    monkeypatch.setattr(progress, "time", clock)
    return clock


@pytest.mark.usefixtures("clock")
def test_a_line_every_thirty_seconds(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    assert list(progress.tracked(range(100), "reading a.csv", 100)) == list(range(100))
    assert caplog.messages == [
        "reading a.csv: 30 of 100 rows, 1/s, 70 s left",
        "reading a.csv: 60 of 100 rows, 1/s, 40 s left",
        "reading a.csv: 90 of 100 rows, 1/s, 10 s left",
    ]


def test_a_short_step_shows_nothing(
    caplog: pytest.LogCaptureFixture, capfd: pytest.CaptureFixture[str], clock: Clock
) -> None:
    clock.step = 0.001
    caplog.set_level(logging.INFO)
    list(progress.tracked(range(100), "reading a.csv"))
    assert not caplog.messages
    assert capfd.readouterr() == ("", "")


@pytest.mark.usefixtures("clock")
def test_a_bar_on_a_terminal(
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
    caplog: pytest.LogCaptureFixture,
) -> None:
    caplog.set_level(logging.INFO)
    monkeypatch.setenv("FORCE_COLOR", "1")
    with progress.progress("reading [b]a.csv", 100, "files") as advance:
        for _ in range(10):
            advance(5)
    shown = re.sub(r"\x1b\[[0-9;?]*[a-zA-Z]", "", capfd.readouterr().err)
    assert "reading [b]a.csv" in shown
    assert "50 of 100 files" in shown


@pytest.mark.usefixtures("clock")
def test_another_process_of_the_machine_draws_no_bar(
    monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("FORCE_COLOR", "1")
    monkeypatch.setenv("LOCAL_RANK", "1")
    list(progress.tracked(range(10), "reading a.csv"))
    assert capfd.readouterr().err == ""
