"""Two pieces of work take turns, and each is charged with its own time alone."""

import pytest

from benchmarks import framework
from benchmarks.framework import Turns


class Clock:
    """Time that passes where it is told to."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.time = 0.0
        monkeypatch.setattr(framework, "now", lambda: self.time)


def test_each_clock_runs_in_its_own_turns(monkeypatch: pytest.MonkeyPatch) -> None:
    clock, turns, order = Clock(monkeypatch), Turns(("a", "b"), length=3), list[str]()

    def work(name: str, steps: int, seconds: float) -> float:
        for _ in range(steps):
            turns.chance(name)
            order.append(name)
            clock.time += seconds
        return steps

    assert turns.run({"a": lambda: work("a", 8, 1), "b": lambda: work("b", 2, 5)}) == {"a": 8, "b": 2}
    assert turns.seconds == {"a": 8, "b": 10}
    assert "".join(order) == "aaabaaabaa"


def test_a_failure_is_told_and_the_other_ends() -> None:
    turns = Turns(("a", "b"), length=0)
    ended = []

    def fails() -> float:
        turns.chance("a")
        message = "no more"
        raise ValueError(message)

    def ends() -> float:
        for _ in range(3):
            turns.chance("b")
        ended.append("b")
        return 1

    with pytest.raises(RuntimeError, match="a failed: ValueError"):
        turns.run({"a": fails, "b": ends})
    assert ended == ["b"]
