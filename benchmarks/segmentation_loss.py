"""Loss of logits upsampled to the size of the labels: the plain formula against Thaw's, by time and peak memory.

    python -m benchmarks.segmentation_loss [--repetitions N] [--native]
    python -m benchmarks.segmentation_loss --step [--precision 32-true|bf16-mixed] [--checkpoint]

Without options: the loss alone, forward and backward, of random logits; the default is Hugging
Face's formula, the tuned peer the same under torch.compile. The gradient's error is relative, in
the Euclidean norm, against the plain formula in float64. With `--native`: Thaw's alone at the size
at which the reference ran out of memory, where the plain formula's upsampled logits are 8.17 GiB
and it holds them three times over. With `--step`: a training step of BEiT-B with UPerNet at 640 x
640, random weights, with its auxiliary head; each side in a process of its own, so that neither
measures what the other left behind. With `--checkpoint`, encoder and head are computed a second
time in the backward pass instead of being kept.
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
# Of a logit: two products and sums of interpolation, an exponential, and two of the interpolation's
# adjoint.
_OPERATIONS = 20
_SIZES = (((160, 160), (640, 640)), ((160, 160), (512, 683)))
_NATIVE = ((160, 160), (2704, 2704))
_GIB = 2**30
_BEIT = {
    "model_type": "beit", "image_size": 640, "patch_size": 16, "out_indices": [3, 5, 7, 11], "use_relative_position_bias": True,
}  # fmt: skip

Loss = Callable[[Tensor, Tensor], Tensor]


def plain(logits: Tensor, labels: Tensor) -> Tensor:
    """The formula that is written everywhere."""
    upsampled = functional.interpolate(
        logits, size=labels.shape[-2:], mode="bilinear", align_corners=False
    )
    return functional.cross_entropy(upsampled, labels.long(), ignore_index=IGNORE_INDEX)


def ours(logits: Tensor, labels: Tensor) -> Tensor:
    """Thaw's, without its predictions."""
    return upsampled_cross_entropy(logits, labels)[0]


_LOSSES: dict[str, Loss] = {"plain formula": plain, "Thaw": ours}


def random_labels(size: tuple[int, int], device: torch.device) -> Tensor:
    """[B, H, W] uint8, a tenth of them not labelled."""
    labels = torch.randint(0, _CLASSES, (_BATCH, *size), dtype=torch.uint8)
    return labels.masked_fill(torch.rand(labels.shape) < _UNLABELLED, IGNORE_INDEX).to(device)


def measure(given: argparse.Namespace) -> list[Row]:
    """A row for each size of the labels."""
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
    what = f"loss of {_BATCH} maps of {_CLASSES} classes, {small[0]} x {small[1]} -> {large[0]} x {large[1]}, and its gradient"
    key = "S5" if (small, large) == _SIZES[0] else f"S5 {large[0]} x {large[1]}"
    count, rate = (
        _BATCH * _CLASSES * large[0] * large[1],
        operations_per_second(torch.float32, given.device),
    )
    why = f"{_OPERATIONS} operations for each of {count / 1e6:.0f} million upsampled logits at {rate / 1e9:,.0f} GFLOP/s"
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
    """Print what Thaw's loss takes where the reference ran out of memory."""
    small, large = _NATIVE
    torch.manual_seed(0)
    logits, labels = (
        torch.randn(_BATCH, _CLASSES, *small, device=device, requires_grad=True),
        random_labels(large, device),
    )
    start = time.perf_counter()
    peak = peak_memory(lambda: torch.autograd.grad(ours(logits, labels), logits), device)
    held = 4 * _BATCH * _CLASSES * large[0] * large[1]
    size = f"{_BATCH} x {large[0]} x {large[1]}"
    print(
        f"labels {size}, {_CLASSES} classes: the upsampled logits alone would be {held / _GIB:.2f} GiB"
    )
    print(f"Thaw: peak extra memory {peak / _GIB:.2f} GiB, {time.perf_counter() - start:.1f} s")


def measure_step(name: str, precision: str, device: torch.device, *, checkpointed: bool) -> None:
    """Take two training steps, the first for warmth, and print the second's peak and seconds as JSON."""
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
    """Print a row for each side."""
    how = "encoder and head checkpointed" if checkpointed else "nothing checkpointed"
    print(f"BEiT-B with UPerNet, {_BATCH} x 640 x 640, {precision}, {how}\n")
    print("| loss | peak of a step, GiB, on top of weights and optimiser | seconds |")
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
    """Measure what was asked for."""
    parser = arguments(__doc__, repetitions=7)
    parser.add_argument(
        "--native", action="store_true", help="the loss alone where the reference ran out of memory"
    )
    parser.add_argument(
        "--step",
        nargs="?",
        const="both",
        choices=["both", *_LOSSES],
        help="a training step instead",
    )
    parser.add_argument(
        "--precision", choices=["32-true", "bf16-mixed"], default="32-true", help="of the step"
    )
    parser.add_argument(
        "--checkpoint", action="store_true", help="of the step: encoder and head computed twice"
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
