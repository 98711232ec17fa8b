"""Sides take turns, each is charged only for its own time, and a side that fails ends all.

The tests check the order of the turns. It is deterministic: a semaphore lets one process run at a
time, and the sides themselves advance the clock that measures a turn.
"""

import argparse
import multiprocessing
from functools import partial
from multiprocessing.util import Finalize
from pathlib import Path

import pytest
import torch
from torch import nn

from benchmarks import turns
from benchmarks.turns import Run, Trained, Turns, side_by_side, side_of

GIVEN = argparse.Namespace(threads=1)


class Counting(Run):
    """Calls its network several times; at each call it logs its name and advances the clock."""

    def __init__(self, name: str, calls: int, seconds: float, place: Path) -> None:
        self.name, self.calls, self.seconds, self.place = name, calls, seconds, place
        self.share = 0.5 if name == "b" else 1.0

    def prepare(self, seed: int, steps: int | None = None) -> nn.Module:
        self.steps = steps
        if seed == 2 and self.name == "b":
            message = "no more"
            raise ValueError(message)
        turns.now = lambda: float((self.place / "clock").read_text())  # type: ignore[assignment]
        self.network = nn.Sequential(nn.Identity())
        return self.network

    def train(self) -> float:
        for _ in range(self.calls if self.steps is None else self.steps):
            self.network(torch.zeros(1))
            with (self.place / "order").open("a") as file:
                file.write(self.name if self.steps is None else "")
            clock = self.place / "clock"
            clock.write_text(str(float(clock.read_text()) + self.seconds))
        return 0.25


class Leaving(Counting):
    """Writes its name as a capital letter when its process ends."""

    def prepare(self, seed: int, steps: int | None = None) -> nn.Module:
        if steps is None:
            Finalize(self, self.leave, exitpriority=1)
        return super().prepare(seed, steps)

    def leave(self) -> None:
        with (self.place / "order").open("a") as file:
            file.write(self.name.upper())


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    (tmp_path / "clock").write_text("0")
    (tmp_path / "order").touch()
    monkeypatch.setattr(turns, "_START", "fork")
    monkeypatch.setattr(turns, "_LOOK", 0.1)
    return tmp_path


def test_each_clock_counts_only_the_turns_of_its_side(
    place: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(turns, "_TURN", 3.0)
    makes = {"a": partial(Counting, "a", 8, 1.0, place), "b": partial(Counting, "b", 2, 5.0, place)}
    found = side_by_side(makes, GIVEN, {"a": 1, "b": 1}, warmth=1)
    assert [found[name][0].seconds for name in makes] == [8, 10]
    assert (place / "order").read_text() == "aaabaaabaa"
    side = side_of(found["b"], "val acc")
    assert (side.seconds, side.share, side.quality) == ((10.0,), 0.5, "val acc 0.2500")


def test_a_side_that_has_ended_waits_until_all_have(place: Path) -> None:
    makes = {
        name: partial(Leaving, name, calls, 1.0, place) for name, calls in (("a", 1), ("b", 6))
    }
    side_by_side(makes, GIVEN, {"a": 1, "b": 1}, warmth=0)
    order = (place / "order").read_text()
    assert sorted(order) == sorted("abbbbbb" + "AB")
    assert set(order[-2:]) == {"A", "B"}


def test_a_side_waits_for_the_others_after_its_result(
    place: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Runs a single side in this process; the test above could pass by chance."""
    done: list[str] = []

    class Results:
        def put(self, result: tuple[int, Trained]) -> None:
            done.append(f"result of side {result[0]}")

    class Over:
        def wait(self) -> None:
            assert order.may_run[0].acquire(block=False)  # another side could run now
            done.append("waited")

    monkeypatch.setattr(turns, "now", turns.now)  # the side replaces it; monkeypatch restores it
    order = Turns(1)
    order.begin()
    turns._play(
        partial(Counting, "a", 1, 1.0, place),
        order,
        0,
        (1, 0, torch.get_num_threads()),
        Results(),
        Over(),
    )
    assert done == ["result of side 0", "waited"]


def test_sides_with_fewer_seeds_skip_later_seeds(
    place: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    makes = {"a": partial(Counting, "a", 1, 1.0, place), "c": partial(Counting, "c", 1, 1.0, place)}
    found = side_by_side(makes, GIVEN, {"a": 2, "c": 1}, warmth=0)
    assert {name: len(trained) for name, trained in found.items()} == {"a": 2, "c": 1}
    assert (place / "order").read_text() == "aca"
    reported = [line.split(":")[0] for line in capsys.readouterr().out.splitlines()]
    assert (sorted(reported[:2]), reported[2]) == (["a, seed 1", "c, seed 1"], "a, seed 2")


def test_a_side_that_fails_ends_all(place: Path) -> None:
    makes = {"a": partial(Counting, "a", 1, 1.0, place), "b": partial(Counting, "b", 1, 1.0, place)}
    with pytest.raises(RuntimeError, match="a side ended with exit code 1"):
        side_by_side(makes, GIVEN, {"a": 2, "b": 2}, warmth=0)
    assert not multiprocessing.active_children()


def test_only_sides_that_have_not_ended_get_the_turn() -> None:
    order = Turns(3)
    assert [order.next_of(side) for side in range(3)] == [1, 2, 0]
    order.ended[1] = 1
    assert [order.next_of(side) for side in range(3)] == [2, 2, 0]
    order.ended[0] = 1
    assert order.next_of(2) == 2
