"""Cost of the framework: a complete Thaw run against a plain PyTorch loop.

    python -m benchmarks.framework --data-dir DIR --backbone FOLDER

Both sides train the same network on the same batches, under the same settings of torch.

- Thaw computes metrics, draws a progress bar, writes the history and two checkpoints an epoch,
  checks each loss and calls its hooks.
- The loop computes loss and gradient, clips the gradient, and takes a step of AdamW and of the
  schedule. It computes the validation accuracy after each epoch. AdamW and clipping are torch's.
- The tuned loop uses Thaw's optimizer and clipping, so that only the framework differs.

There are two workloads. Fine-tuning in small batches has steps of about 100 ms; a BiGRU on stored
features has steps of tens of milliseconds. On all sides the features are computed before the clock
starts.
"""

import argparse
import io
import itertools
import statistics
import tempfile
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any, Literal

import torch
from lightning.pytorch.callbacks import RichProgressBar
from torch import nn
from torch.nn.functional import binary_cross_entropy_with_logits

from benchmarks.measuring import setting
from benchmarks.rows import Goal, Row, arguments, command
from benchmarks.text_runs import ThawRun, add_backbone
from benchmarks.turns import Run, side_by_side, side_of
from engine.trainer import PROGRESS_RATE
from lightning_modules.optim.groups import parameter_groups
from lightning_modules.optim.optimizers import clip_in_step, make_optimizer
from lightning_modules.optim.schedules import lr_schedule

_WARMUP_STEPS = 10
_FINE_TUNING = {"trainer.max_epochs": 1, "data.batch_size": 2}
_ONCE = "steps of 100 ms"  # measured once only, as it takes minutes
_STEP = 0.1  # seconds; the cost of a step is stated as a share of such a step
# Name -> experiment, overrides, whether its features are stored, maximal cost, aim.
_WORK: dict[str, tuple[str, dict[str, Any], bool, float, float]] = {
    "steps of 100 ms": ("minilm_finetune", _FINE_TUNING, False, 0.02, 0.01),
    "stored features, BiGRU": ("minilm_bigru_feature", {"trainer.max_epochs": 5}, True, 0.10, 0.05),
}


class PlainLoop(ThawRun):
    """A plain PyTorch loop with the same network, batches and settings."""

    def train(self) -> float:
        """Train and validate; return the validation accuracy of the last epoch, 0..1."""
        assert self.objects is not None  # noqa: S101 - tells the type checker
        network, data, cfg = (
            self.objects.task.network.to(self.given.device),
            self.objects.datamodule,
            self.cfg,
        )
        half = torch.autocast(
            self.given.device, torch.bfloat16, enabled=cfg.trainer.precision == "bf16-mixed"
        )
        train, val = data.train_dataloader(), data.val_dataloader()
        limits = [
            int(n) if isinstance(n := cfg.trainer[f"limit_{stage}_batches"], int) else None
            for stage in ("train", "val")
        ]
        optimizer = self.optimizer(
            parameter_groups(network, self.objects.task.lrs, cfg.model.weight_decay)
        )
        steps = limits[0] or len(train)
        schedule, total = self.objects.task.schedule, cfg.trainer.max_epochs * steps
        scheduler = lr_schedule(optimizer, schedule, total_steps=total, steps_per_epoch=steps)
        accuracy = 0.0
        for epoch in range(cfg.trainer.max_epochs):
            self.objects.task.train()
            train.batch_sampler.sampler.set_epoch(epoch)
            for batch in map(self._there, itertools.islice(train, limits[0])):
                with half:
                    logits = network(batch)
                    loss = binary_cross_entropy_with_logits(
                        logits[:, 0].float(), batch["labels"].float()
                    )
                optimizer.zero_grad()
                loss.backward()  # type: ignore[no-untyped-call]
                self.step(optimizer, cfg.trainer.gradient_clip_val)
                scheduler.step()
            self.objects.task.eval()
            right = count = 0
            with torch.inference_mode(), half:
                for batch in map(self._there, itertools.islice(val, limits[1])):
                    right += int(((network(batch)[:, 0] >= 0).long() == batch["labels"]).sum())
                    count += len(batch["labels"])
            accuracy = right / count
        return accuracy

    def optimizer(self, groups: list[dict[str, Any]]) -> torch.optim.Optimizer:
        """Return torch's AdamW over the trainable parameters."""
        trained = [
            {**group, "params": [p for p in group["params"] if p.requires_grad]} for group in groups
        ]
        return torch.optim.AdamW([group for group in trained if group["params"]])

    def step(self, optimizer: torch.optim.Optimizer, max_norm: float) -> None:
        """Clip the gradients to `max_norm` and take a step."""
        torch.nn.utils.clip_grad_norm_(
            [p for group in optimizer.param_groups for p in group["params"]], max_norm
        )
        optimizer.step()

    def _there(self, batch: dict[str, Any]) -> dict[str, Any]:
        return {name: value.to(self.given.device) for name, value in batch.items()}


class TunedLoop(PlainLoop):
    """The plain loop with Thaw's optimizer and clipping."""

    def optimizer(self, groups: list[dict[str, Any]]) -> torch.optim.Optimizer:
        """Return Thaw's AdamW: one pass over the weights, and no search for GPUs in each step."""
        return make_optimizer(torch.optim.AdamW, groups)

    def step(self, optimizer: torch.optim.Optimizer, max_norm: float) -> None:
        """Take a step that clips the gradients to `max_norm`."""
        clip_in_step(optimizer, max_norm)
        optimizer.step()


class ThawWithBar(ThawRun):
    """A Thaw run with the progress bar of a terminal, drawn into a buffer."""

    def prepare(self, seed: int, steps: int | None = None) -> nn.Module:
        """Build the run as `ThawRun` does, and add the progress bar."""
        network = super().prepare(seed, steps)
        assert self.objects is not None  # noqa: S101 - tells the type checker
        buffer = {"file": io.StringIO(), "force_terminal": True}
        bar = RichProgressBar(PROGRESS_RATE, leave=False, console_kwargs=buffer)
        self.objects.trainer.callbacks.append(bar)  # type: ignore[attr-defined]
        return network


def measure(given: argparse.Namespace) -> Iterator[Row]:
    """Measure the chosen workloads."""
    with tempfile.TemporaryDirectory() as folder:
        for name in given.work or _WORK:
            experiment, overrides, stored, most, aim = _WORK[name]
            yield _row(
                name, experiment, overrides, Path(folder) if stored else "none", (most, aim), given
            )


def _row(
    name: str,
    experiment: str,
    overrides: dict[str, Any],
    features: Path | Literal["none"],
    wanted: tuple[float, float],
    given: argparse.Namespace,
) -> Row:
    overrides = {"data.max_length": 128, **overrides}
    makes: dict[str, Callable[[], Run]] = {
        "Thaw": partial(ThawWithBar, experiment, given, overrides, features=features),
        "default": partial(PlainLoop, experiment, given, overrides, features=features),
        "tuned": partial(TunedLoop, experiment, given, overrides, features=features),
    }
    seeds = 1 if name == _ONCE else given.repetitions
    found = side_by_side(makes, given, dict.fromkeys(makes, seeds), warmth=_WARMUP_STEPS)
    sides = {side: side_of(trained, "val acc") for side, trained in found.items()}
    loop = PlainLoop(experiment, given, overrides)
    loop.prepare(1)
    steps = loop.cfg.trainer.max_epochs * len(loop.datamodule.train_dataloader())
    goals = []
    for baseline in ("default", "tuned"):
        pairs = zip(found["Thaw"], found[baseline], strict=True)
        cost = statistics.median(
            (ours.seconds - theirs.seconds) / (_STEP * steps if name == _ONCE else theirs.seconds)
            for ours, theirs in pairs
        )
        metric = (
            f"cost of a step, as a share of {1000 * _STEP:.0f} ms," if name == _ONCE else "cost"
        )
        goals.append(Goal(f"{metric} beside the {baseline}", cost, *wanted, less=True))
    tuned_step = 1000 * sides["tuned"].timing.median / steps  # ms
    what = (
        f"a run with everything on beside a plain PyTorch loop: {name}, "
        f"{steps:,} of {tuned_step:.3g} ms in the tuned loop, with its validation"
    )
    return Row(
        f"S7 {name}", what, sides, tuple(goals), setting("torch", "lightning"), None, given.device
    )


if __name__ == "__main__":
    parser = add_backbone(arguments(__doc__, repetitions=3))
    parser.add_argument(
        "--work", nargs="*", choices=list(_WORK), help="measure these workloads only"
    )
    command(parser, measure)
