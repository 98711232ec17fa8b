"""The recipe of Jordan, "94% on CIFAR-10 in 3.29 seconds on a single GPU" (2024, arXiv 2404.00498), in plain PyTorch.

9.9 epochs of 1,024 images, SGD with Nesterov's momentum, biases at 64 times the learning rate, lookahead, label smoothing, an
alternating flip; bfloat16 by autocast, channels last.
"""

import io
import math
from collections.abc import Callable
from pathlib import Path
from typing import cast

import numpy as np
import pyarrow.parquet as pq
import torch
from PIL import Image
from torch import Tensor, nn
from torch.nn import functional

BATCH, EPOCHS, _PADDING = 1024, 9.9, 2
# Learning rate and weight decay of a sum of losses, for a thousand images' worth of steps; on biases times _BIAS.
_LR, _DECAY, _MOMENTUM, _BIAS = 11.5, 0.0153, 0.85, 64
_BIAS_EPOCHS = 3  # in which the first layer's bias trains
_SMOOTHING = 0.2
# Of the learning rate: where it starts and ends, as a share of its peak, and when it is there.
_START, _END, _PEAK_AT = 0.2, 0.07, 0.23
_LOOKAHEAD, _SLOWEST = 5, 0.95
_TEST_BATCH = 500


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
    lr, decay = _LR / kilostep, _DECAY * BATCH / kilostep
    biases = [p for name, p in model.named_parameters() if name.endswith("bias")]
    rest = [p for p in model.parameters() if p.requires_grad and p.ndim > 1]
    groups = [{"params": biases, "lr": lr * _BIAS, "weight_decay": decay / (lr * _BIAS)}]
    groups.append({"params": rest, "lr": lr, "weight_decay": decay / lr})
    return torch.optim.SGD(groups, momentum=_MOMENTUM, nesterov=True)


def train(model: nn.Sequential, images: Tensor, labels: Tensor, epochs: float = EPOCHS) -> None:
    """Train by the published recipe.

    Args:
        model: Of `network`; is in eval mode afterwards.
        images: [N, 3, 32, 32] float32, normalised, N at least 1,024.
        labels: [N] int64.
        epochs: Also parts of one.
    """
    model.train()
    optimizer, lookahead = _optimizer(model), Lookahead(model)
    peaks = [group["lr"] for group in optimizer.param_groups]
    per_epoch = len(images) // BATCH
    total, flipped = math.ceil(per_epoch * epochs), torch.rand(len(images)) < 0.5  # noqa: PLR2004
    for step in range(total):
        epoch, place = divmod(step, per_epoch)
        if place == 0:
            order, changed = torch.randperm(len(images)), crops(images)
            mirrored = (flipped ^ bool(epoch % 2)).view(-1, 1, 1, 1)
            changed = torch.where(mirrored, changed.flip(-1), changed)
            cast(Tensor, model[0].bias).requires_grad_(epoch < _BIAS_EPOCHS)
        rows = order[place * BATCH : (place + 1) * BATCH]
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
    model.eval()


def accuracy(model: Callable[[Tensor], Tensor], images: Tensor, labels: Tensor, *, mirrored: bool) -> float:
    """Share of images that are recognised; by the mean of their and their mirror images' logits, if asked for."""
    right = 0
    for some, wanted in zip(torch.split(images, _TEST_BATCH), torch.split(labels, _TEST_BATCH), strict=True):
        with torch.no_grad(), torch.autocast("cpu", torch.bfloat16):
            logits = model(some).float()
            logits = logits + model(some.flip(-1)).float() if mirrored else logits
        right += int((logits.argmax(dim=1) == wanted).sum())
    return right / len(labels)
