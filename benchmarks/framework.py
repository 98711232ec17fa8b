"""What the framework itself costs: a run with everything on against a plain PyTorch loop over the same network and batches.

    python -m benchmarks.framework --data-dir DIR --backbone FOLDER

Thaw counts figures, draws a progress bar, writes the history and two checkpoints an epoch, looks at each loss, and keeps its
hooks; the loop, under the same settings of torch, takes the loss, the gradient, clips it, takes a step of AdamW and of the
schedule, and computes the validation accuracy after each epoch. Three pieces of work: an epoch of fine-tuning in batches of 4,
whose steps take about 100 ms, and heads on stored features, whose steps take tens of milliseconds (BiGRU) or a few (linear).
The features are computed before the clock starts, on both sides.

A few per cent are less than what a machine's speed changes by between two runs: both sides train at the same time, in two
threads of which one waits, and hand over after each half second. Each side's seconds are those of its own turns.
"""

import argparse
import io
import itertools
import statistics
import threading
from collections.abc import Callable
from typing import Any

import torch
from lightning.pytorch.callbacks import RichProgressBar
from torch.nn.functional import binary_cross_entropy_with_logits
from torch.optim.lr_scheduler import LambdaLR

from benchmarks.measuring import now, setting
from benchmarks.rows import Goal, Row, Side, arguments, command
from benchmarks.text_runs import ThawRun, add_backbone
from engine.build import PROGRESS_EVERY
from lightning_modules.optim import parameter_groups

_WARMTH = 10  # steps
_TURN = 0.5  # seconds
_FINE_TUNING = {"trainer.max_epochs": 1, "data.batch_size": 4}
# Name -> experiment, words, what of it is stored, most that it may cost, and what would be fine.
_WORK: dict[str, tuple[str, dict[str, Any], Any, float, float]] = {
    "steps of 100 ms": ("minilm_finetune", _FINE_TUNING, "none", 0.02, 0.01),
    "stored features, BiGRU": ("minilm_bigru_feature", {"trainer.max_epochs": 5}, "before", 0.10, 0.05),
    "stored features, linear": ("minilm_feature", {"trainer.max_epochs": 10}, "before", 0.10, 0.05),
}


class PlainLoop(ThawRun):
    """The same network, batches and optimiser, without a framework."""

    def train(self) -> float:
        """Train and validate; returns the last epoch's validation accuracy, 0..1."""
        assert self.parts is not None  # noqa: S101 - tells the type checker
        network, data, cfg = self.parts.task.network.to(self.given.device), self.parts.datamodule, self.cfg
        data.steps_at_once = 1
        half = torch.autocast(self.given.device, torch.bfloat16, enabled=cfg.trainer.precision == "bf16-mixed")
        train, val = data.train_dataloader(), data.val_dataloader()
        limits = [int(n) if isinstance(n := cfg.trainer[f"limit_{stage}_batches"], int) else None for stage in ("train", "val")]
        trained = [parameter for parameter in network.parameters() if parameter.requires_grad]
        groups = parameter_groups(network, self.parts.task.lrs, cfg.model.weight_decay)
        optimizer = torch.optim.AdamW(groups, fused=True)
        steps = cfg.trainer.max_epochs * (limits[0] or len(train))
        warmup = max(1, round(cfg.model.warmup * steps))
        scheduler = LambdaLR(optimizer, lambda step: min((step + 1) / warmup, max(0.0, (steps - step) / (steps - warmup))))
        accuracy = 0.0
        for epoch in range(cfg.trainer.max_epochs):
            self.parts.task.train()
            train.batch_sampler.sampler.set_epoch(epoch)
            for batch in map(self._there, itertools.islice(train, limits[0])):
                with half:
                    logits = network(batch)
                    loss = binary_cross_entropy_with_logits(logits[:, 0].float(), batch["labels"].float())
                optimizer.zero_grad()
                loss.backward()  # type: ignore[no-untyped-call]
                torch.nn.utils.clip_grad_norm_(trained, cfg.trainer.gradient_clip_val)
                optimizer.step()
                scheduler.step()
            self.parts.task.eval()
            right = count = 0
            with torch.inference_mode(), half:
                for batch in map(self._there, itertools.islice(val, limits[1])):
                    right += int(((network(batch)[:, 0] >= 0).long() == batch["labels"]).sum())
                    count += len(batch["labels"])
            accuracy = right / count
        return accuracy

    def _there(self, batch: dict[str, Any]) -> dict[str, Any]:
        return {name: value.to(self.given.device) for name, value in batch.items()}


class Turns:
    """Two pieces of work in two threads, of which one runs at a time; a clock for each.

    Args:
        names: Whose turns they are.
        length: Seconds after which a turn is handed over at the next chance.
    """

    def __init__(self, names: tuple[str, str], length: float = _TURN) -> None:
        self.seconds = dict.fromkeys(names, 0.0)
        self._length = length
        self._other = dict(zip(names, reversed(names), strict=True))
        self._may_run = {name: threading.Semaphore(0) for name in names}
        self._ended: set[str] = set()
        self._since = 0.0

    def run(self, work: dict[str, Callable[[], float]]) -> dict[str, float]:
        """Do both pieces of work, each of which calls `chance` often.

        Args:
            work: Name -> what to do.

        Returns:
            Name -> what its work returned.

        Raises:
            RuntimeError: A piece of work failed; its own error is the cause.
        """
        results: dict[str, float | BaseException] = {}

        def play(name: str) -> None:
            self._may_run[name].acquire()
            self._since = now()
            try:
                results[name] = work[name]()
            except BaseException as error:  # raised again below, in the thread that asked
                results[name] = error
            self.seconds[name] += now() - self._since
            self._ended.add(name)
            self._may_run[self._other[name]].release()

        first, second = self._other
        thread = threading.Thread(target=play, args=(second,))
        thread.start()
        self._may_run[first].release()
        play(first)  # in this thread: signals of a trainer are the main thread's
        thread.join()
        for name, result in results.items():
            if isinstance(result, BaseException):
                message = f"{name} failed: {result!r}"
                raise RuntimeError(message) from result
        return {name: results[name] for name in work}  # type: ignore[misc] - the errors were raised above

    def chance(self, name: str) -> None:
        """Hand over if this turn was long enough, and wait for the next one."""
        if self._other[name] in self._ended or now() - self._since < self._length:
            return
        self.seconds[name] += now() - self._since
        self._may_run[self._other[name]].release()
        self._may_run[name].acquire()
        self._since = now()


def _bar() -> RichProgressBar:
    """The progress bar that a run has on a terminal, on one that nobody sees."""
    return RichProgressBar(PROGRESS_EVERY, leave=False, console_kwargs={"file": io.StringIO(), "force_terminal": True})


def side_by_side(runs: dict[str, ThawRun], seed: int, steps: int | None = None) -> tuple[dict[str, float], dict[str, float]]:
    """Train both sides from a seed, in turns.

    Args:
        runs: Name -> side; two of them.
        seed: Of both.
        steps: Of an epoch; all of it unless given.

    Returns:
        Name -> seconds, and name -> accuracy.
    """
    first, second = runs
    turns = Turns((first, second))
    for name, run in runs.items():
        run.prepare(seed, steps)
        assert run.parts is not None  # noqa: S101 - tells the type checker
        if type(run) is ThawRun:
            run.parts.trainer.callbacks.append(_bar())  # type: ignore[attr-defined]
        run.parts.task.network.register_forward_pre_hook(lambda *_, name=name: turns.chance(name))
    accuracies = turns.run({name: run.train for name, run in runs.items()})
    return turns.seconds, accuracies


def measure(given: argparse.Namespace) -> list[Row]:
    """Measure each piece of work."""
    rows = []
    for name, (experiment, words, features, most, aim) in _WORK.items():
        stated = {"data.max_length": 128, **words}
        runs = {
            "Thaw": ThawRun(experiment, given, stated, features=features),
            "default": PlainLoop(experiment, given, stated, features=features),
        }
        side_by_side(runs, 0, steps=_WARMTH)
        both = [side_by_side(runs, seed) for seed in range(1, given.repetitions + 1)]
        for taken, right in both:
            print(", ".join(f"{side} {taken[side]:.2f} s, accuracy {right[side]:.4f}" for side in runs), flush=True)
        sides = {
            side: Side(
                tuple(taken[side] for taken, _ in both),
                quality="val acc " + ", ".join(f"{right[side]:.4f}" for _, right in both),
            )
            for side in runs
        }
        costs = statistics.median(taken["Thaw"] / taken["default"] - 1 for taken, _ in both)
        goals = (Goal("cost of the framework", costs, most, aim, less=True),)
        what = f"a run with everything on beside a plain PyTorch loop: {name}"
        rows.append(Row(f"S7 {name}", what, sides, goals, setting("torch", "lightning"), None, given.device))
    return rows


if __name__ == "__main__":
    command(add_backbone(arguments(__doc__, repetitions=3)), measure)
