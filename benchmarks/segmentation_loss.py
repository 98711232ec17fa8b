"""Time and peak memory of the loss of upsampled logits: Thaw against the plain formula.

    python -m benchmarks.segmentation_loss [--repetitions N] [--native]
    python -m benchmarks.segmentation_loss --step [--precision 32-true|bf16-mixed] [--checkpoint]

The logits are upsampled to the size of the labels.

- Without options: forward and backward pass of the loss alone, on random logits. The default
  baseline is Hugging Face's formula, the tuned baseline the same under torch.compile. The
  gradient's error is relative to the plain formula in float64, in the Euclidean norm.
- `--native`: Thaw's loss alone, at the size at which the reference ran out of memory. There the
  upsampled logits are 8.17 GiB, and the plain formula stores them three times.
- `--step`: a training step of BEiT-B with UPerNet and its auxiliary head, random weights, at
  640 x 640. Each side runs in a process of its own, so that memory left by one does not count for
  the other. With `--checkpoint` the activations of encoder and head are not stored but computed
  again in the backward pass.
"""

import argparse
import json
import subprocess
import sys
import time
from collections.abc import Callable
from functools import partial

import torch
from torch import Tensor
from torch.nn import functional

from benchmarks.machine import operations_per_second
from benchmarks.measuring import alternate, setting
from benchmarks.memory import peak_memory
from benchmarks.rows import Goal, Limit, Row, Side, arguments, command, ratio_goals
from datamodules.batches import IGNORE_INDEX, SegmentationBatch
from lightning_modules.losses.upsampled_cross_entropy import upsampled_cross_entropy
from lightning_modules.networks.backbones.segmentation import segmentation_network

_CLASSES, _BATCH, _UNLABELLED = 150, 2, 0.1
# For each upsampled logit: two products and sums of the interpolation, an exponential, and two
# products and sums of the interpolation's adjoint.
_OPERATIONS = 20
_SIZES = (((160, 160), (640, 640)), ((160, 160), (512, 683)))
_NATIVE = ((160, 160), (2704, 2704))
_GIB = 2**30
_BEIT = {
    "model_type": "beit",
    "image_size": 640,
    "patch_size": 16,
    "out_indices": [3, 5, 7, 11],
    "use_relative_position_bias": True,
}

Loss = Callable[[Tensor, Tensor], Tensor]


def plain(logits: Tensor, labels: Tensor) -> Tensor:
    """Return the cross-entropy of upsampled logits by the usual formula."""
    upsampled = functional.interpolate(
        logits, size=labels.shape[-2:], mode="bilinear", align_corners=False
    )
    return functional.cross_entropy(upsampled, labels.long(), ignore_index=IGNORE_INDEX)


def ours(logits: Tensor, labels: Tensor) -> Tensor:
    """Return Thaw's loss, without its predictions."""
    return upsampled_cross_entropy(logits, labels)[0]


_LOSSES: dict[str, Loss] = {"plain formula": plain, "Thaw": ours}


def random_labels(size: tuple[int, int], device: torch.device) -> Tensor:
    """Return labels [B, H, W], uint8, of which a tenth is unlabelled."""
    labels = torch.randint(0, _CLASSES, (_BATCH, *size), dtype=torch.uint8)
    return labels.masked_fill(torch.rand(labels.shape) < _UNLABELLED, IGNORE_INDEX).to(device)


def measure(given: argparse.Namespace) -> list[Row]:
    """Measure a row for each size of the labels."""
    return [_row(small, large, given) for small, large in _SIZES]


def _row(small: tuple[int, int], large: tuple[int, int], given: argparse.Namespace) -> Row:
    torch.manual_seed(0)
    device = torch.device(given.device)
    logits, labels = (
        torch.randn(_BATCH, _CLASSES, *small, device=device, requires_grad=True),
        random_labels(large, device),
    )

    def work(loss: Loss) -> Tensor:
        return torch.autograd.grad(loss(logits, labels), logits)[0]

    losses = {"Thaw": ours, "default": plain, "tuned": torch.compile(plain, dynamic=False)}
    double = logits.detach().double().requires_grad_()
    exact = torch.autograd.grad(plain(double, labels), double)[0]
    errors = {
        name: float((work(loss).double() - exact).norm() / exact.norm())
        for name, loss in losses.items()
    }
    del exact, double
    times = alternate(
        {name: partial(work, loss) for name, loss in losses.items()}, given.repetitions
    )
    sides = {
        name: Side(
            times[name].seconds,
            quality=f"gradient's error {errors[name]:.1e}",
            memory=peak_memory(partial(work, loss), device),
        )
        for name, loss in losses.items()
    }
    memory = (sides["Thaw"].memory or 0) / (sides["default"].memory or 1)
    goals = ratio_goals(sides, ("default", 4, 12), ("tuned", 4, 12))
    goals += (Goal("memory, as a share of the default's", memory, 1 / 10, 1 / 30, less=True),)
    what = (
        f"loss of {_BATCH} maps of {_CLASSES} classes, "
        f"{small[0]} x {small[1]} -> {large[0]} x {large[1]}, and its gradient"
    )
    key = "S5" if (small, large) == _SIZES[0] else f"S5 {large[0]} x {large[1]}"
    count, rate = (
        _BATCH * _CLASSES * large[0] * large[1],
        operations_per_second(torch.float32, given.device),
    )
    why = (
        f"{_OPERATIONS} operations for each of {count / 1e6:.0f} million upsampled logits "
        f"at {rate / 1e9:,.0f} GFLOP/s"
    )
    return Row(
        key,
        what,
        sides,
        goals,
        setting("torch"),
        Limit(_OPERATIONS * count / rate, why),
        given.device,
    )


def measure_native(device: torch.device) -> None:
    """Print memory and time of Thaw's loss where the reference ran out of memory."""
    small, large = _NATIVE
    torch.manual_seed(0)
    logits, labels = (
        torch.randn(_BATCH, _CLASSES, *small, device=device, requires_grad=True),
        random_labels(large, device),
    )
    start = time.perf_counter()
    peak = peak_memory(lambda: torch.autograd.grad(ours(logits, labels), logits), device)
    upsampled = 4 * _BATCH * _CLASSES * large[0] * large[1]
    size = f"{_BATCH} x {large[0]} x {large[1]}"
    print(
        f"labels {size}, {_CLASSES} classes: "
        f"the upsampled logits alone would be {upsampled / _GIB:.2f} GiB"
    )
    print(f"Thaw: peak extra memory {peak / _GIB:.2f} GiB, {time.perf_counter() - start:.1f} s")


def measure_step(name: str, precision: str, device: torch.device, *, checkpointed: bool) -> None:
    """Take two training steps and print peak memory and seconds of the second as JSON.

    The first step is a warm-up.

    Args:
        name: Name of the loss, `plain formula` or `Thaw`.
        precision: `32-true` or `bf16-mixed`.
        device: Device of the step.
        checkpointed: Whether encoder and head are checkpointed.
    """
    torch.manual_seed(0)
    loss = _LOSSES[name]
    network = segmentation_network(
        _BEIT, _CLASSES, checkpoint_encoder=checkpointed, checkpoint_head=checkpointed
    ).to(device)
    optimizer = torch.optim.AdamW(network.parameters(), lr=6e-5)
    pixels = torch.randint(0, 256, (_BATCH, 3, 640, 640), dtype=torch.uint8, device=device)
    labels = random_labels((640, 640), device)
    zero = torch.zeros(_BATCH, dtype=torch.int64, device=device)
    batch = SegmentationBatch(pixel_values=pixels, labels=labels, sizes=zero, index=zero)

    def step() -> None:
        with torch.autocast(device.type, torch.bfloat16, enabled=precision == "bf16-mixed"):
            logits, auxiliary = network(batch)
            assert auxiliary is not None  # noqa: S101 - tells the type checker
            total = loss(logits, labels) + 0.4 * loss(auxiliary, labels)
        total.backward()  # type: ignore[no-untyped-call]
        optimizer.step()
        optimizer.zero_grad()

    step()
    start = time.perf_counter()
    peak = peak_memory(step, device)
    print(json.dumps({"peak": peak, "seconds": time.perf_counter() - start}))


def compare_steps(precision: str, *, checkpointed: bool) -> None:
    """Print a table with a row for each side."""
    how = "encoder and head checkpointed" if checkpointed else "nothing checkpointed"
    print(f"BEiT-B with UPerNet, {_BATCH} x 640 x 640, {precision}, {how}\n")
    print("| loss | peak of a step, GiB, on top of weights and optimizer | seconds |")
    print("|---|---|---|")
    for name in _LOSSES:
        command = [
            sys.executable,
            "-m",
            "benchmarks.segmentation_loss",
            "--step",
            name,
            "--precision",
            precision,
        ]
        command += ["--checkpoint"] if checkpointed else []
        done = subprocess.run(command, capture_output=True, text=True, check=True)  # noqa: S603 - our own command
        found = json.loads(done.stdout.splitlines()[-1])
        print(f"| {name} | {found['peak'] / _GIB:.2f} | {found['seconds']:.1f} |")


def main() -> None:
    """Measure the loss, the loss at native size, or a training step."""
    parser = arguments(__doc__, repetitions=7)
    parser.add_argument(
        "--native",
        action="store_true",
        help="measure Thaw's loss at the size at which the reference ran out of memory",
    )
    parser.add_argument(
        "--step",
        nargs="?",
        const="both",
        choices=["both", *_LOSSES],
        help="measure a training step",
    )
    parser.add_argument(
        "--precision",
        choices=["32-true", "bf16-mixed"],
        default="32-true",
        help="precision of the step",
    )
    parser.add_argument(
        "--checkpoint", action="store_true", help="use gradient checkpointing in the step"
    )
    given = parser.parse_args()
    device = torch.device(given.device)
    if given.step in _LOSSES:
        measure_step(given.step, given.precision, device, checkpointed=given.checkpoint)
    elif given.native or given.step:
        print(f"{setting('torch', 'transformers')}; {device.type}\n")
        if given.native:
            measure_native(device)
        else:
            compare_steps(given.precision, checkpointed=given.checkpoint)
    else:
        command(parser, measure)


if __name__ == "__main__":
    main()
