"""Training runs that are measured side by side: processes of which one runs at a time, for a second or so, and then the next.

A machine that others share changes its speed by more, from one minute to the next, than what is to
be measured. Sides that take turns meet the same machine. Each is a process of its own, so that
nothing that one sets holds for another, and its seconds are those of its own turns.
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

_TURN = 1.0  # seconds after which a turn is handed over at the next chance
_LOOK = 5.0  # seconds between looks at whether a process has died
_START = "spawn"


class Run(ABC):
    """Something that trains from a seed.

    Attributes:
        share: What part of the whole work the last training was, above 0 and up to 1.
    """

    share = 1.0

    @abstractmethod
    def prepare(self, seed: int, steps: int | None = None) -> nn.Module:
        """Build all that a run needs, which is not measured; `steps` for a short one.

        Returns:
            The network; whenever it is called, the turn may go to another side.
        """

    @abstractmethod
    def train(self) -> float:
        """Train and test; returns the accuracy, 0..1, or nan where none is told."""


@dataclass(frozen=True)
class Trained:
    """What a side did from one seed.

    Attributes:
        seconds: Of its own turns.
        accuracy: What it returned.
        share: See `Run`.
    """

    seconds: float
    accuracy: float
    share: float = 1.0


def side_of(trained: Sequence[Trained], accuracy_of: str) -> Side:
    """The side of a row, with the accuracy of each seed."""
    accuracies = ", ".join(f"{one.accuracy:.4f}" for one in trained)
    return Side(
        tuple(one.seconds for one in trained), trained[0].share, f"{accuracy_of} {accuracies}"
    )


class Turns:
    """Whose turn it is, among processes.

    Args:
        sides: How many there are.
        context: Makes what processes share.
    """

    def __init__(self, sides: int, context: Any = multiprocessing) -> None:  # noqa: ANN401 - a context or the module
        self.may_run = [context.Semaphore(0) for _ in range(sides)]
        self.ended = context.Array(
            "b", sides, lock=False
        )  # only whoever has the turn looks and writes

    def begin(self) -> None:
        """Give the first side its turn."""
        self.may_run[0].release()

    def next_of(self, side: int) -> int:
        """Who comes after a side, among those that have not ended; itself where it is the last."""
        count = len(self.may_run)
        following = [(side + i) % count for i in range(1, count + 1)]
        return next((other for other in following if not self.ended[other]), side)


class Clock:
    """Counts the seconds of a side's turns."""

    def __init__(self, turns: Turns, side: int) -> None:
        self.turns, self.side = turns, side
        self.seconds, self._since = 0.0, 0.0

    def wait(self) -> None:
        """Wait for the turn, and go on."""
        self.turns.may_run[self.side].acquire()
        self.start()

    def start(self) -> None:
        """Go on in a turn that is there already."""
        self._since = now()

    def chance(self) -> None:
        """Hand over if this turn was long enough."""
        if now() - self._since >= _TURN:
            self.hand_over()

    def hand_over(self) -> None:
        """Let the others have their turns first."""
        following = self.turns.next_of(self.side)
        if following == self.side:
            return
        self.stop()
        self.turns.may_run[following].release()
        self.wait()

    def stop(self) -> None:
        """Stop, in a turn that goes on."""
        self.seconds += now() - self._since

    def end(self) -> None:
        """Let the others have all turns from now on."""
        self.turns.ended[self.side] = 1
        self.turns.may_run[self.turns.next_of(self.side)].release()


def side_by_side(
    makes: Mapping[str, Callable[[], Run]],
    given: argparse.Namespace,
    seeds: Mapping[str, int],
    *,
    warmth: int,
) -> dict[str, list[Trained]]:
    """Train all sides from seed 1 in turns, then from the next those that are to, and so on.

    Args:
        makes: Name -> what makes the side in its process; it is pickled.
        given: The command line; `threads` of each process.
        seeds: How many, of each side.
        warmth: Steps of a short run before the first.

    Returns:
        Name -> what it did, seed after seed.

    Raises:
        RuntimeError: If a side failed; its own error stands above.
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
                    f"{names[side]}, seed {seed}: {trained.seconds:.1f} s, accuracy {trained.accuracy:.4f}",
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
    """Be the process of a side, and lie still until all sides are done: a process that ends works for a second or two."""
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
    for module in (network, *network.children()):  # features are computed by a part of it
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
                msg = (
                    f"a side ended with exit code {dead[0].exitcode}; what it printed stands above"
                )
                raise RuntimeError(msg) from None
        else:
            return found
