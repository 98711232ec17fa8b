"""Loss of logits upsampled to the size of the labels: the plain formula against Thaw's, by time and peak memory.

    python -m benchmarks.segmentation_loss [--repetitions N] [--native]
    python -m benchmarks.segmentation_loss --step [--precision 32-true|bf16-mixed] [--checkpoint]

Without options: the loss alone, forward and backward, of random logits. The gradient's errors are relative, in the Euclidean
norm, against the plain formula in float32 and in float64. With `--native`: Thaw's alone at the size at which the reference ran
out of memory, where the plain formula's upsampled logits are 8.17 GiB and it holds them three times over. With `--step`: a
training step of BEiT-B with UPerNet at 640 x 640, random weights, with its auxiliary head; each side in a process of its own,
so that neither measures what the other left behind. With `--checkpoint`, encoder and head are computed a second time in the
backward pass instead of being kept.
"""

import argparse
import json
import subprocess
import sys
import time
from collections.abc import Callable

import torch
from torch import Tensor
from torch.nn import functional

from benchmarks.measuring import alternate, setting
from benchmarks.memory import peak_memory
from datamodules.batches import IGNORE_INDEX, SceneBatch
from lightning_modules.networks.segmentation_networks import segmentation_network
from lightning_modules.upsampled_cross_entropy import upsampled_cross_entropy

_CLASSES, _BATCH, _UNLABELLED = 150, 2, 0.1
_SIZES = (((160, 160), (640, 640)), ((160, 160), (512, 683)))
_NATIVE = ((160, 160), (2704, 2704))
_MIB, _GIB = 2**20, 2**30
_BEIT = {
    "model_type": "beit", "image_size": 640, "patch_size": 16, "out_indices": [3, 5, 7, 11], "use_relative_position_bias": True,
}  # fmt: skip

Loss = Callable[[Tensor, Tensor], Tensor]


def plain(logits: Tensor, labels: Tensor) -> Tensor:
    """The formula that is written everywhere."""
    upsampled = functional.interpolate(logits, size=labels.shape[-2:], mode="bilinear", align_corners=False)
    return functional.cross_entropy(upsampled, labels.long(), ignore_index=IGNORE_INDEX)


def ours(logits: Tensor, labels: Tensor) -> Tensor:
    """Thaw's, without its predictions."""
    return upsampled_cross_entropy(logits, labels)[0]


_LOSSES: dict[str, Loss] = {"plain formula": plain, "Thaw": ours}


def random_labels(size: tuple[int, int], device: torch.device) -> Tensor:
    """[B, H, W] uint8, a tenth of them not labelled."""
    labels = torch.randint(0, _CLASSES, (_BATCH, *size), dtype=torch.uint8)
    return labels.masked_fill(torch.rand(labels.shape) < _UNLABELLED, IGNORE_INDEX).to(device)


def measure_losses(device: torch.device, repetitions: int) -> None:
    """Print a row for each size and side."""
    print(
        "| logits | labels | loss | seconds | spread | peak extra memory, MiB | gradient, against float32 | against float64 |"
    )
    print("|---|---|---|---|---|---|---|---|")
    for small, large in _SIZES:
        torch.manual_seed(0)
        logits, labels = torch.randn(_BATCH, _CLASSES, *small, device=device, requires_grad=True), random_labels(large, device)

        def work(loss: Loss, logits: Tensor = logits, labels: Tensor = labels) -> Tensor:
            gradient = torch.autograd.grad(loss(logits, labels), logits)[0]
            if device.type == "cuda":
                torch.cuda.synchronize(device)
            return gradient

        double = logits.detach().double().requires_grad_()
        exact = [work(plain).double(), torch.autograd.grad(plain(double, labels), double)[0]]
        errors = {
            name: " | ".join(f"{float((work(loss).double() - one).norm() / one.norm()):.1e}" for one in exact)
            for name, loss in _LOSSES.items()
        }
        del exact, double
        times = alternate({name: lambda loss=loss: work(loss) for name, loss in _LOSSES.items()}, repetitions)  # type: ignore[misc]
        for name, loss in _LOSSES.items():
            peak = peak_memory(lambda loss=loss: work(loss), device)  # type: ignore[misc]
            cells = [f"{a} x {b}" for a, b in (small, large)]
            figures = f"{times[name].median:.3f} | {times[name].spread:.0%} | {peak / _MIB:,.0f} | {errors[name]}"
            print(f"| {cells[0]} | {cells[1]} | {name} | {figures} |")


def measure_native(device: torch.device) -> None:
    """Print what Thaw's loss takes where the reference ran out of memory."""
    small, large = _NATIVE
    torch.manual_seed(0)
    logits, labels = torch.randn(_BATCH, _CLASSES, *small, device=device, requires_grad=True), random_labels(large, device)
    start = time.perf_counter()
    peak = peak_memory(lambda: torch.autograd.grad(ours(logits, labels), logits), device)
    held = 4 * _BATCH * _CLASSES * large[0] * large[1]
    size = f"{_BATCH} x {large[0]} x {large[1]}"
    print(f"labels {size}, {_CLASSES} classes: the upsampled logits alone would be {held / _GIB:.2f} GiB")
    print(f"Thaw: peak extra memory {peak / _GIB:.2f} GiB, {time.perf_counter() - start:.1f} s")


def measure_step(name: str, precision: str, device: torch.device, *, checkpointed: bool) -> None:
    """Take two training steps, the first for warmth, and print the second's peak and seconds as JSON."""
    torch.manual_seed(0)
    loss = _LOSSES[name]
    network = segmentation_network(_BEIT, _CLASSES, checkpoint_encoder=checkpointed, checkpoint_head=checkpointed).to(device)
    optimizer = torch.optim.AdamW(network.parameters(), lr=6e-5)
    pixels = torch.randint(0, 256, (_BATCH, 3, 640, 640), dtype=torch.uint8, device=device)
    labels = random_labels((640, 640), device)
    zero = torch.zeros(_BATCH, dtype=torch.int64, device=device)
    batch = SceneBatch(pixel_values=pixels, labels=labels, sizes=zero, index=zero)

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
        command = [sys.executable, "-m", "benchmarks.segmentation_loss", "--step", name, "--precision", precision]
        command += ["--checkpoint"] if checkpointed else []
        done = subprocess.run(command, capture_output=True, text=True, check=True)  # noqa: S603 - our own command
        found = json.loads(done.stdout.splitlines()[-1])
        print(f"| {name} | {found['peak'] / _GIB:.2f} | {found['seconds']:.1f} |")


def main() -> None:
    """Measure what was asked for."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--native", action="store_true", help="the loss alone where the reference ran out of memory")
    parser.add_argument("--step", nargs="?", const="both", choices=["both", *_LOSSES], help="a training step instead")
    parser.add_argument("--precision", choices=["32-true", "bf16-mixed"], default="32-true", help="of the step")
    parser.add_argument("--checkpoint", action="store_true", help="of the step: encoder and head computed twice")
    parser.add_argument("--repetitions", type=int, default=7, help="of the loss alone")
    arguments = parser.parse_args()
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    if arguments.step in _LOSSES:
        measure_step(arguments.step, arguments.precision, device, checkpointed=arguments.checkpoint)
        return
    print(f"{setting('torch', 'transformers')}; {device.type}\n")
    if arguments.native:
        measure_native(device)
    elif arguments.step:
        compare_steps(arguments.precision, checkpointed=arguments.checkpoint)
    else:
        measure_losses(device, arguments.repetitions)


if __name__ == "__main__":
    main()
