"""Images per second of a vision transformer that merges tokens, against the same without.

    python -m benchmarks.merging_speed [--device cuda] [--threads 2] [--repetitions 5]

The networks have random weights, which does not change the speed. All numbers of merged tokens are
measured in turn; on a GPU in float16, on a CPU in float32 and, if it has units for it, in bfloat16.
"""

import argparse
from collections.abc import Callable
from functools import partial

import timm
import torch

from benchmarks.measuring import alternate, setting
from engine.config.precision import bfloat16_units
from lightning_modules.networks.dividing.counting import block_costs
from lightning_modules.networks.tokens.merging import merge_tokens

_NETWORKS = {
    "ViT-S/16": ("vit_small_patch16_224", (0, 8, 13)),
    "ViT-B/16": ("vit_base_patch16_224", (0, 8, 13, 16)),
}
_BATCH = {"cpu": 16, "cuda": 256}


def main() -> None:
    """Measure and print the table."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    default = "cuda" if torch.cuda.is_available() else "cpu"
    parser.add_argument("--device", choices=list(_BATCH), default=default)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--repetitions", type=int, default=5)
    given = parser.parse_args()
    torch.set_num_threads(given.threads)
    print(setting("torch", "timm"))
    print("| network | precision | r | multiplications | images/s | spread | n | times r = 0 |")
    print("|---|---|---|---|---|---|---|---|")
    precisions = [torch.float16]
    if given.device == "cpu":
        precisions = [torch.float32, *([torch.bfloat16] if bfloat16_units() else [])]
    for name in _NETWORKS:
        for precision in precisions:
            for line in measured(name, given.device, precision, given.repetitions):
                print(line, flush=True)


def measured(name: str, device: str, precision: torch.dtype, repetitions: int) -> list[str]:
    """Return a line of the table for each number of merged tokens."""
    architecture, numbers = _NETWORKS[name]
    images = torch.randn(_BATCH[device], 3, 224, 224, device=device)
    works: dict[str, Callable[[], object]] = {}
    costs: dict[str, int] = {}
    for merged in numbers:
        network = timm.create_model(architecture, num_classes=0).eval()
        merge_tokens(network, merged)
        one = block_costs(network, "blocks", torch.zeros(1, 3, 224, 224))
        costs[str(merged)] = sum(cost.multiplications for cost in one)

        works[str(merged)] = partial(_run, network.to(device), images, precision)
    timings = alternate(works, repetitions)
    plain = timings["0"].median
    return [
        f"| {name} | {str(precision).removeprefix('torch.')} | {merged} "
        f"| {costs[merged] / costs['0']:.0%} | {len(images) / timing.median:,.1f} "
        f"| {timing.spread:.0%} | {len(timing.seconds)} | {plain / timing.median:.2f} |"
        for merged, timing in timings.items()
    ]


def _run(network: torch.nn.Module, images: torch.Tensor, precision: torch.dtype) -> None:
    half = precision != torch.float32
    with torch.inference_mode(), torch.autocast(images.device.type, precision, enabled=half):
        network(images)


if __name__ == "__main__":
    main()
