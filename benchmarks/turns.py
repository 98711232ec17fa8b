"""Training runs measured in turns: one process at a time runs for about a second, then the next.

The speed of a shared machine changes from minute to minute by more than the differences to be
measured. Sides that take turns run under the same conditions. Each side is a process of its own, so
that global settings of one do not affect another. Its seconds are those of its own turns.
"""

import argparse
import multiprocessing
import queue
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from multiprocessing.process import BaseProcess
from typing import Any

import torch
from torch import nn

from benchmarks.measuring import now
from benchmarks.rows import Side

_TURN = 1.0  # seconds after which the next call of the network hands over the turn
_LOOK = 5.0  # seconds between checks whether a process has died
_START = "spawn"


class Run(ABC):
    """A training run that can be repeated with other seeds.

    Attributes:
        share: Share of the whole work that `train` did, above 0 and up to 1.
    """

    share = 1.0

    @abstractmethod
    def prepare(self, seed: int, steps: int | None = None) -> nn.Module:
        """Build everything that the run needs. This is not measured.

        Args:
            seed: Seed of the run.
            steps: Number of steps of a short run; None for a whole one.

        Returns:
            The network. At each call of it, the turn may pass to another side.
        """

    @abstractmethod
    def train(self) -> float:
        """Train and test; return the accuracy, 0..1, or nan if there is none."""


@dataclass(frozen=True)
class Trained:
    """The measurement of a side for one seed.

    Attributes:
        seconds: Seconds of its own turns.
        accuracy: Accuracy that `Run.train` returned.
        share: Measured share of the whole work, see `Run`.
    """

    seconds: float
    accuracy: float
    share: float = 1.0


def side_of(trained: Sequence[Trained], accuracy_of: str) -> Side:
    """Return a side of a row.

    Args:
        trained: Its measurements, one per seed.
        accuracy_of: Name of the accuracy, such as `val acc`.
    """
    accuracies = ", ".join(f"{one.accuracy:.4f}" for one in trained)
    return Side(
        tuple(one.seconds for one in trained), trained[0].share, f"{accuracy_of} {accuracies}"
    )


class Turns:
    """Shared state of the processes that take turns.

    Args:
        sides: Number of processes.
        context: Context of multiprocessing that creates the shared objects.
    """

    def __init__(self, sides: int, context: Any = multiprocessing) -> None:  # noqa: ANN401 - a context or the module
        self.may_run = [context.Semaphore(0) for _ in range(sides)]
        # Without a lock: only the process that has the turn reads and writes it.
        self.ended = context.Array("b", sides, lock=False)

    def begin(self) -> None:
        """Give the first side its turn."""
        self.may_run[0].release()

    def next_of(self, side: int) -> int:
        """Return the next side that has not ended; the same side if it is the last."""
        count = len(self.may_run)
        following = [(side + i) % count for i in range(1, count + 1)]
        return next((other for other in following if not self.ended[other]), side)


class Clock:
    """Counts the seconds of a side's turns."""

    def __init__(self, turns: Turns, side: int) -> None:
        self.turns, self.side = turns, side
        self.seconds, self._since = 0.0, 0.0

    def wait(self) -> None:
        """Wait for the turn and start counting."""
        self.turns.may_run[self.side].acquire()
        self.start()

    def start(self) -> None:
        """Start counting, in a turn that this side already has."""
        self._since = now()

    def chance(self) -> None:
        """Hand over the turn if it was long enough."""
        if now() - self._since >= _TURN:
            self.hand_over()

    def hand_over(self) -> None:
        """Pass the turn on, and wait until it comes back."""
        following = self.turns.next_of(self.side)
        if following == self.side:
            return
        self.stop()
        self.turns.may_run[following].release()
        self.wait()

    def stop(self) -> None:
        """Stop counting, and keep the turn."""
        self.seconds += now() - self._since

    def end(self) -> None:
        """Pass the turn on for good."""
        self.turns.ended[self.side] = 1
        self.turns.may_run[self.turns.next_of(self.side)].release()


def side_by_side(
    makes: Mapping[str, Callable[[], Run]],
    given: argparse.Namespace,
    seeds: Mapping[str, int],
    *,
    warmth: int,
) -> dict[str, list[Trained]]:
    """Train the sides in turns: first all with seed 1, then those that have a seed 2, and so on.

    Args:
        makes: Name -> function that creates the run in its process; it is pickled.
        given: Command-line arguments; `threads` is the number of threads of each process.
        seeds: Name -> number of seeds.
        warmth: Steps of the short warm-up run before each measurement.

    Returns:
        Name -> measurements, one per seed.

    Raises:
        RuntimeError: If a side failed; its process has printed the error.
    """
    found: dict[str, list[Trained]] = {name: [] for name in makes}
    for seed in range(1, max(seeds.values()) + 1):
        names = [name for name in makes if seed <= seeds[name]]
        context: Any = multiprocessing.get_context(_START)
        turns, results, over = Turns(len(names), context), context.Queue(), context.Event()
        processes = [
            context.Process(
                target=_play,
                args=(makes[name], turns, i, (seed, warmth, given.threads), results, over),
                daemon=True,
            )
            for i, name in enumerate(names)
        ]
        for process in processes:
            process.start()
        turns.begin()
        try:
            for _ in names:
                side, trained = _next_result(results, processes)
                found[names[side]].append(trained)
                print(
                    f"{names[side]}, seed {seed}: {trained.seconds:.1f} s, "
                    f"accuracy {trained.accuracy:.4f}",
                    flush=True,
                )
            over.set()
            for process in processes:
                process.join()
        finally:
            for process in processes:
                process.terminate()
                process.join()
    return found


def _play(
    make: Callable[[], Run],
    turns: Turns,
    side: int,
    numbers: tuple[int, int, int],
    results: Any,  # noqa: ANN401 - a queue
    over: Any,  # noqa: ANN401 - an event
) -> None:
    """Run a side in its process, then wait until all sides are done.

    A process that exits computes for a second or two, which would slow down the other sides.
    """
    seed, warmth, threads = numbers
    torch.set_num_threads(threads)
    preparing = Clock(turns, side)
    preparing.wait()
    run = make()
    run.prepare(0, steps=warmth)
    run.train()
    network = run.prepare(seed)
    preparing.hand_over()
    clock = Clock(turns, side)
    clock.start()
    for module in (network, *network.children()):  # storing features calls children only
        module.register_forward_pre_hook(lambda *_: clock.chance())
    accuracy = run.train()
    clock.stop()
    results.put((side, Trained(clock.seconds, accuracy, run.share)))
    clock.end()
    over.wait()


def _next_result(results: Any, processes: Sequence[BaseProcess]) -> tuple[int, Trained]:  # noqa: ANN401 - a queue
    while True:
        try:
            found: tuple[int, Trained] = results.get(timeout=_LOOK)
        except queue.Empty:
            dead = [process for process in processes if process.exitcode]
            if dead:
                msg = f"a side ended with exit code {dead[0].exitcode}; see its output above"
                raise RuntimeError(msg) from None
        else:
            return found
