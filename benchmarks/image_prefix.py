"""Ten epochs of DeiT-B, trained from `blocks.11` on: Thaw against the usual loop.

    python -m benchmarks.image_prefix --data-dir DIR

Thaw runs the frozen blocks once and stores their output. The baseline is the loop of Malpure,
Litake & Ingle (arXiv 2110.05270). In each epoch it reads every image with Pillow, resizes it to 224
pixels and runs all blocks, with Adam on the trainable parameters, in float32 or in bfloat16. That
takes an hour, so a sample of its steps is measured and extrapolated.

Both train on 1,000 images, without augmentation and with the horizontal flip. With the flip Thaw
stores two views of each image. The backbone has random weights, which changes no operation, so
nothing is downloaded.
"""

import argparse
from collections.abc import Iterator
from functools import partial
from typing import Any

import torch
from torch import nn
from torch.utils.data import DataLoader

from benchmarks.image_runs import (
    EPOCHS,
    IMAGES,
    Pictures,
    ThawImages,
    backbone_operations,
    gradient_difference,
    plain_steps,
    timm_network,
)
from benchmarks.machine import operations_per_second
from benchmarks.measuring import now, setting
from benchmarks.rows import Limit, Row, Side, arguments, command, ratio_goals

_NAME, _WIDTH, _BATCH = "deit_base_distilled_patch16_224", 768, 64
_FROZEN = 11 / 12  # share of the forward pass
_STEPS = {"default": 2, "tuned": 4}  # of a baseline in each repetition
_MEAN, _STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)


def thaw(given: argparse.Namespace, *, flip: bool) -> ThawImages:
    """Return the experiment's run without augmentation that changes images in each epoch."""
    overrides: dict[str, Any] = {
        "model.backbone": {"architecture": _NAME},
        "data.augmentation.rotation": 0.0,
        "data.augmentation.flip": flip,
        "data.batch_size": _BATCH,
    }
    return ThawImages("cifar10_deit", given, overrides)


def baseline_network(given: argparse.Namespace) -> nn.Module:
    """Return the reference's network, in which the last block and the head are trainable."""
    hidden = (
        nn.Linear(_WIDTH, 256),
        nn.ReLU(),
        nn.Dropout(0.5),
        nn.Linear(256, 256),
        nn.ReLU(),
        nn.Dropout(0.5),
    )
    network = timm_network(_NAME, nn.Sequential(*hidden, nn.Linear(256, 10)), given.device)
    trainable = False
    for name, parameter in network[0].named_parameters():  # type: ignore[index]
        trainable |= name.startswith("blocks.11")
        parameter.requires_grad = trainable
    return network


def baseline(given: argparse.Namespace, *, flip: bool, half: bool) -> Any:  # noqa: ANN401 - a partial
    """Return a function that takes some steps of the reference's loop."""
    network = baseline_network(given)
    trained = [parameter for parameter in network.parameters() if parameter.requires_grad]
    loader = DataLoader(
        Pictures(given.data_dir, _MEAN, _STD, flip=flip),
        batch_size=_BATCH,
        shuffle=True,
        drop_last=True,
    )
    steps = _STEPS["tuned" if half else "default"]
    return partial(
        plain_steps,
        network,
        loader,
        torch.optim.Adam(trained, lr=1e-4),
        steps,
        half=half,
        device=given.device,
    )


def measure(given: argparse.Namespace) -> Iterator[Row]:
    """Measure without augmentation and with the horizontal flip."""
    rate, forward = operations_per_second(torch.bfloat16, given.device), backbone_operations(_NAME)
    for flip in (False, True):
        ours = thaw(given, flip=flip)
        baselines = {name: baseline(given, flip=flip, half=name == "tuned") for name in _STEPS}
        for steps in baselines.values():
            steps()  # warm-up
        seconds: dict[str, list[float]] = {name: [] for name in ("Thaw", *baselines)}
        for _ in range(given.repetitions):
            train = ours.run()
            for name, work in {"Thaw": train, **baselines}.items():
                start = now()
                work()
                seconds[name].append(now() - start)
                print(f"{name}: {seconds[name][-1]:.1f} s", flush=True)
        whole = EPOCHS * (IMAGES / _BATCH)
        loss, gradient = gradient_difference(ours)
        exact = gradient_difference(ours, baseline_network(given).cpu())
        quality = (
            f"one batch against training without stored features: loss {loss:.1e}, "
            f"gradient {gradient:.1e} relative; against the baseline's network in float32, "
            f"on Thaw's pixels: loss {exact[0]:.1e}, gradient {exact[1]:.1e}"
        )
        sides = {"Thaw": Side(tuple(seconds["Thaw"]), quality=quality)}
        sides |= {
            name: Side(tuple(seconds[name]), share=_STEPS[name] / whole) for name in baselines
        }
        trained = EPOCHS * IMAGES * 3 * forward * (1 - _FROZEN)  # forward and backward
        operations = IMAGES * forward * _FROZEN * (2 if flip else 1) + trained
        limit = Limit(
            operations / rate,
            f"{operations / 1e12:.0f} TFLOP at {rate / 1e9:,.0f} GFLOP/s in bfloat16",
        )
        augmentation = "flip" if flip else "no augmentation"
        what = f"DeiT-B from blocks.11 on, {IMAGES:,} images, {EPOCHS} epochs, {augmentation}"
        goals = ratio_goals(sides, ("default", 15, 24), ("tuned", 6, 14))
        key = f"S3 {'flip' if flip else 'plain'}"
        yield Row(
            key, what, sides, goals, setting("torch", "lightning", "timm"), limit, given.device
        )


if __name__ == "__main__":
    command(arguments(__doc__, repetitions=3), measure)
