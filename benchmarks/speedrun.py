"""CIFAR-10 from random weights: accuracy and seconds of `train.py experiment=cifar10_speedrun` beside the published recipe.

The peer is the recipe of Jordan, "94% on CIFAR-10 in 3.29 seconds on a single GPU" (2024, arXiv 2404.00498), written anew in
plain PyTorch: 9.9 epochs of 1,024 images, SGD with Nesterov's momentum, biases at 64 times the learning rate, lookahead, label
smoothing, an alternating flip; bfloat16 by autocast, channels last. The peer trains on all images, the experiment on all
but those it keeps back for validation; both are tested on the same file. Seconds are those of training, data decoded before.

    python -m benchmarks.speedrun --data-dir DIR [--epochs 9.9]
"""

import argparse
import io
import json
import math
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, cast

import numpy as np
import pyarrow.parquet as pq
import torch
from omegaconf import DictConfig, OmegaConf
from PIL import Image
from torch import Tensor, nn
from torch.nn import functional
from torch.utils.flop_counter import FlopCounterMode

from benchmarks.machine import operations_per_second
from benchmarks.measuring import setting
from benchmarks.rows import Goal, Limit, Row, Side, arguments, command
from engine.build import model_from_checkpoint
from engine.checkpoints import load_checkpoint
from engine.run_folder import RunFolder

_ROOT = Path(__file__).resolve().parent.parent
_BATCH, _EPOCHS, _PADDING = 1024, 9.9, 2
# Learning rate and weight decay of a sum of losses, for a thousand images' worth of steps; on biases times _BIAS.
_LR, _DECAY, _MOMENTUM, _BIAS = 11.5, 0.0153, 0.85, 64
_BIAS_EPOCHS = 3  # in which the first layer's bias trains
_SMOOTHING = 0.2
# Of the learning rate: where it starts and ends, as a share of its peak, and when it is there.
_START, _END, _PEAK_AT = 0.2, 0.07, 0.23
_LOOKAHEAD, _SLOWEST = 5, 0.95
_TEST_BATCH = 500
_LEAST, _AIM = 0.907, 0.915
_SHARE = 400 / 619  # of the peer's time, in which the least accuracy would be fine too


def read(data_dir: Path, split: str) -> tuple[Tensor, Tensor]:
    """Images [N, 3, 32, 32] uint8 and labels [N] of a split's file."""
    table = pq.read_table(data_dir / "cifar10" / f"{split}.parquet")
    pictures = [np.asarray(Image.open(io.BytesIO(cell["bytes"])).convert("RGB")) for cell in table.column("img").to_pylist()]
    return torch.from_numpy(np.stack(pictures)).permute(0, 3, 1, 2), torch.tensor(table.column("label").to_pylist())


def normalised(images: Tensor) -> Tensor:
    """Float32, channels last."""
    mean, std = torch.tensor([0.4914, 0.4822, 0.4465]), torch.tensor([0.2470, 0.2435, 0.2616])
    images = (images.float() / 255 - mean.view(3, 1, 1)) / std.view(3, 1, 1)
    return images.contiguous(memory_format=torch.channels_last)


def _norm(width: int) -> nn.BatchNorm2d:
    norm = nn.BatchNorm2d(width, eps=1e-12, momentum=0.4)
    norm.weight.requires_grad = False
    return norm


def _block(width_in: int, width: int) -> nn.Sequential:
    convolutions = [nn.Conv2d(n, width, 3, padding=1, bias=False) for n in (width_in, width)]
    for convolution in convolutions:
        nn.init.dirac_(convolution.weight.data[: convolution.in_channels])
    first, second = convolutions
    return nn.Sequential(first, nn.MaxPool2d(2), _norm(width), nn.GELU(), second, _norm(width), nn.GELU())


class _Scale(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return x.flatten(1) / 9


def network(images: Tensor) -> nn.Sequential:
    """The published network, its first layer whitening 2 x 2 patches of some images."""
    patches = images.unfold(2, 2, 1).unfold(3, 2, 1).permute(0, 2, 3, 1, 4, 5).reshape(-1, 12)
    values, vectors = torch.linalg.eigh(patches.t() @ patches / len(patches))
    filters = (vectors / (values + 5e-4).sqrt()).t().reshape(12, 3, 2, 2)
    whitening = nn.Conv2d(3, 24, 2)
    whitening.weight.data = torch.cat([filters, -filters])
    whitening.weight.requires_grad = False
    nn.init.zeros_(cast(Tensor, whitening.bias))
    blocks = (_block(24, 64), _block(64, 256), _block(256, 256))
    made = nn.Sequential(whitening, nn.GELU(), *blocks, nn.MaxPool2d(3), _Scale(), nn.Linear(256, 10, bias=False))
    return made.to(memory_format=torch.channels_last)


def crops(images: Tensor) -> Tensor:
    """A window of the old size out of each image with a mirrored border."""
    bordered = functional.pad(images, (_PADDING,) * 4, mode="reflect")
    cut = torch.empty_like(images)
    rows, columns = torch.randint(0, 2 * _PADDING + 1, (2, len(images)))
    for row in range(2 * _PADDING + 1):
        for column in range(2 * _PADDING + 1):
            there = (rows == row) & (columns == column)
            cut[there] = bordered[there, :, row : row + images.shape[2], column : column + images.shape[3]]
    return cut


def share_of_peak(step: int, total: int) -> float:
    """The learning rate at a step: two straight lines."""
    return float(np.interp(step / total, [0, _PEAK_AT, 1], [_START, 1, _END]))


class Lookahead:
    """A slow copy of weights and statistics, which the fast ones are set back to every few steps (arXiv 1907.08610)."""

    def __init__(self, model: nn.Module) -> None:
        self.fast = [value for value in model.state_dict().values() if value.is_floating_point()]
        self.slow = [value.clone() for value in self.fast]

    def meet(self, keep: float) -> None:
        """Move the slow copy to the fast weights, but for a share that it keeps, and these to it."""
        for slow, fast in zip(self.slow, self.fast, strict=True):
            slow.lerp_(fast, 1 - keep)
            fast.copy_(slow)


def _optimizer(model: nn.Module) -> torch.optim.SGD:
    kilostep = 1024 * (1 + 1 / (1 - _MOMENTUM))
    lr, decay = _LR / kilostep, _DECAY * _BATCH / kilostep
    biases = [p for name, p in model.named_parameters() if name.endswith("bias")]
    rest = [p for p in model.parameters() if p.requires_grad and p.ndim > 1]
    groups = [{"params": biases, "lr": lr * _BIAS, "weight_decay": decay / (lr * _BIAS)}]
    groups.append({"params": rest, "lr": lr, "weight_decay": decay / lr})
    return torch.optim.SGD(groups, momentum=_MOMENTUM, nesterov=True)


def train(images: Tensor, labels: Tensor, epochs: float = _EPOCHS) -> tuple[nn.Sequential, float]:
    """Train by the published recipe.

    Args:
        images: [N, 3, 32, 32] float32, normalised, N at least 1,024.
        labels: [N] int64.
        epochs: Also parts of one.

    Returns:
        The network in eval mode, and the seconds of training.
    """
    model = network(images[:5000]).train()
    start = time.perf_counter()
    optimizer, lookahead = _optimizer(model), Lookahead(model)
    peaks = [group["lr"] for group in optimizer.param_groups]
    per_epoch = len(images) // _BATCH
    total, flipped = math.ceil(per_epoch * epochs), torch.rand(len(images)) < 0.5  # noqa: PLR2004
    for step in range(total):
        epoch, place = divmod(step, per_epoch)
        if place == 0:
            order, changed = torch.randperm(len(images)), crops(images)
            mirrored = (flipped ^ bool(epoch % 2)).view(-1, 1, 1, 1)
            changed = torch.where(mirrored, changed.flip(-1), changed)
            cast(Tensor, model[0].bias).requires_grad_(epoch < _BIAS_EPOCHS)
        rows = order[place * _BATCH : (place + 1) * _BATCH]
        for group, peak in zip(optimizer.param_groups, peaks, strict=True):
            group["lr"] = peak * share_of_peak(step, total)
        with torch.autocast("cpu", torch.bfloat16):
            logits = model(changed[rows].contiguous(memory_format=torch.channels_last))
        loss = functional.cross_entropy(logits.float(), labels[rows], label_smoothing=_SMOOTHING, reduction="sum")
        optimizer.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        optimizer.step()
        if (step + 1) % _LOOKAHEAD == 0:
            lookahead.meet(_SLOWEST**_LOOKAHEAD * ((step + 1) / total) ** 3)
    lookahead.meet(1.0)
    return model.eval(), time.perf_counter() - start


def accuracy(model: Callable[[Tensor], Tensor], images: Tensor, labels: Tensor, *, mirrored: bool) -> float:
    """Share of images that are recognised; by the mean of their and their mirror images' logits, if asked for."""
    right = 0
    for some, wanted in zip(torch.split(images, _TEST_BATCH), torch.split(labels, _TEST_BATCH), strict=True):
        with torch.no_grad(), torch.autocast("cpu", torch.bfloat16):
            logits = model(some).float()
            logits = logits + model(some.flip(-1)).float() if mirrored else logits
        right += int((logits.argmax(dim=1) == wanted).sum())
    return right / len(labels)


def thaw(data_dir: Path, threads: int, folder: Path) -> dict[str, Any]:
    """The experiment's metrics.json and number of epochs, run as a user would."""
    words = ["experiment=cifar10_speedrun", f"paths.data_dir={data_dir.resolve()}", f"hydra.run.dir={folder}"]
    run = [sys.executable, "train.py", *words, "trainer.accelerator=cpu"]
    subprocess.run(run, cwd=_ROOT, check=True, env={**os.environ, "OMP_NUM_THREADS": str(threads)})  # noqa: S603
    metrics: dict[str, Any] = json.loads((folder / "metrics.json").read_text(encoding="utf-8"))
    return {**metrics, "epochs": len(RunFolder(folder).read_history())}


def of_fewer_views(folder: Path, images: Tensor, labels: Tensor) -> tuple[float, float]:
    """The run's accuracy by each test image alone, and by it and its mirror image, as the peer is tested."""
    cfg = OmegaConf.load(folder / "config.yaml")
    assert isinstance(cfg, DictConfig)  # noqa: S101 - tells the type checker
    task: Any = model_from_checkpoint(cfg, load_checkpoint(folder / "checkpoints" / "best.ckpt")).eval()
    task.shift_test, found = 0, []
    for task.mirror_test in (False, True):

        def logits(pixels: Tensor) -> Tensor:
            some = torch.zeros(len(pixels), dtype=torch.int64)
            given: Tensor = task.logits({"pixel_values": pixels, "labels": some, "index": some})
            return given

        found.append(accuracy(logits, images, labels, mirrored=False))
    return found[0], found[1]


def measure(given: argparse.Namespace) -> list[Row]:
    """Train both once and test them."""
    torch.manual_seed(1)
    images, labels = read(given.data_dir, "test")
    with tempfile.TemporaryDirectory() as place:
        folder = Path(place) / "run"
        metrics = thaw(given.data_dir, given.threads, folder)
        own_plain, own_mirrored = of_fewer_views(folder, images, labels)
    pictures, classes = read(given.data_dir, "train")
    model, seconds = train(normalised(pictures), classes, given.epochs)
    plain, mirrored = (accuracy(model, normalised(images), labels, mirrored=mirror) for mirror in (False, True))
    own, own_seconds = metrics["test"]["acc"], metrics["seconds"]["fit"]
    views = "accuracy {:.4f}, with mirrored test images {:.4f}"
    sides = {
        "Thaw": Side((own_seconds,), quality=f"{views.format(own_plain, own_mirrored)}, with shifted ones too {own:.4f}"),
        "tuned": Side((seconds,), quality=f"published recipe: {views.format(plain, mirrored)}"),
    }
    goals = (
        Goal("accuracy", own, _LEAST, _AIM),
        Goal("seconds, as a share of the peer's", own_seconds / seconds, 1.0, _SHARE, less=True),
    )
    work = f"CIFAR-10 from random weights, tested on {len(labels):,} images"
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        model(normalised(images[:1]))
    # Forward, and twice that backward, of all images in each epoch.
    operations = 3 * counter.get_total_flops() * metrics["epochs"] * len(classes)
    rate = operations_per_second(torch.bfloat16)
    limit = Limit(operations / rate, f"{operations / 1e12:.0f} TFLOP at {rate / 1e9:,.0f} GFLOP/s in bfloat16")
    return [Row("S6", work, sides, goals, setting("torch", "lightning"), limit)]


if __name__ == "__main__":
    parser = arguments(__doc__, repetitions=1, on_gpus=False)
    parser.add_argument("--epochs", type=float, default=_EPOCHS, help=f"of the peer (default: {_EPOCHS})")
    command(parser, measure)
