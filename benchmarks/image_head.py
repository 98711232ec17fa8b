"""Ten epochs of a linear layer on a frozen BEiT-B, 1,000 images: Thaw against the Trainer of Hugging Face.

    python -m benchmarks.image_head --data-dir DIR

The same network of timm with random weights on both sides (nothing is downloaded), batches of 10,
AdamW 2e-5. The Trainer reads every image through Pillow and runs all of the network in each epoch;
in float32, and in bfloat16. It repeats one step for most of an hour, so some of its steps are
measured and stand for all.
"""

import argparse
import tempfile
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy
from transformers import Trainer, TrainerCallback, TrainingArguments

from benchmarks.image_runs import (
    EPOCHS,
    IMAGES,
    Pictures,
    ThawImages,
    backbone_operations,
    gradient_difference,
    timm_network,
)
from benchmarks.machine import operations_per_second
from benchmarks.measuring import as_torch_is, now, setting
from benchmarks.rows import Limit, Row, Side, arguments, command, ratio_goals

_NAME, _WIDTH, _BATCH = "beit_base_patch16_224", 768, 10
_STEPS = {"default": 6, "tuned": 12}  # of the peers, in each repetition
_GREY = (0.5, 0.5, 0.5)


class HeadOnly(nn.Module):
    """The network as the Trainer takes it: everything frozen but the linear layer."""

    def __init__(self, device: str) -> None:
        super().__init__()
        self.network = timm_network(_NAME, nn.Linear(_WIDTH, 10), device)
        for parameter in self.network[0].parameters():  # type: ignore[index]
            parameter.requires_grad = False

    def forward(self, pixel_values: Tensor, labels: Tensor) -> dict[str, Tensor]:
        """Loss and logits."""
        logits = self.network(pixel_values)
        return {"loss": cross_entropy(logits, labels), "logits": logits}


class Stamps(TrainerCallback):
    """The time between the ends of the first step and of the last: the Trainer's setting up is no part of a step."""

    def on_step_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:  # noqa: ANN401, ARG002 - the Trainer's signature
        """Note the time."""
        if state.global_step == 1:
            self.first = now()
        self.seconds = now() - self.first


def _collate(samples: list[tuple[Tensor, int]]) -> dict[str, Tensor]:
    pixels, labels = zip(*samples, strict=True)
    return {"pixel_values": torch.stack(pixels), "labels": torch.tensor(labels)}


def peer(given: argparse.Namespace, folder: str, *, half: bool) -> Any:  # noqa: ANN401 - untyped
    """Some steps of the Trainer."""
    images = Pictures(given.data_dir, _GREY, _GREY, flip=False)
    options = TrainingArguments(
        output_dir=folder,
        per_device_train_batch_size=_BATCH,
        max_steps=_STEPS["tuned" if half else "default"],
        learning_rate=2e-5,
        weight_decay=0.01,
        save_strategy="no",
        report_to="none",
        disable_tqdm=True,
        logging_strategy="no",
        remove_unused_columns=False,
        use_cpu=given.device == "cpu",
        bf16=half,
    )
    stamps = Stamps()
    network: Any = HeadOnly(given.device)
    trainer: Any = Trainer(
        model=network,
        args=options,
        train_dataset=images,
        data_collator=_collate,
        callbacks=[stamps],
    )

    def steps() -> float:
        as_torch_is()
        trainer.train()
        return stamps.seconds

    return steps


def measure(given: argparse.Namespace) -> list[Row]:
    """Measure the row."""
    ours = ThawImages(
        "cifar10_beit_head",
        given,
        {"model.backbone": {"architecture": _NAME}, "data.batch_size": _BATCH},
    )
    seconds: dict[str, list[float]] = {name: [] for name in ("Thaw", *_STEPS)}
    with tempfile.TemporaryDirectory() as folder:
        peers = {name: peer(given, folder, half=name == "tuned") for name in _STEPS}
        for steps in peers.values():
            steps()  # warm
        for _ in range(given.repetitions):
            train = ours.run()
            start = now()
            train()
            seconds["Thaw"].append(now() - start)
            for name, steps in peers.items():
                seconds[name].append(steps())
            print(
                ", ".join(f"{name}: {values[-1]:.1f} s" for name, values in seconds.items()),
                flush=True,
            )
    loss, gradient = gradient_difference(ours)
    exact = gradient_difference(ours, HeadOnly("cpu").network)
    quality = (
        f"one batch against training without stored features: loss {loss:.1e}, gradient {gradient:.1e} relative; "
        f"against the peer's network in float32, on Thaw's pixels: loss {exact[0]:.1e}, gradient {exact[1]:.1e}"
    )
    whole = EPOCHS * IMAGES / _BATCH
    sides = {"Thaw": Side(tuple(seconds["Thaw"]), quality=quality)}
    sides |= {name: Side(tuple(seconds[name]), share=(_STEPS[name] - 1) / whole) for name in peers}
    operations, rate = (
        IMAGES * backbone_operations(_NAME),
        operations_per_second(torch.bfloat16, given.device),
    )
    limit = Limit(
        operations / rate,
        f"one forward pass, {operations / 1e12:.0f} TFLOP at {rate / 1e9:,.0f} GFLOP/s",
    )
    what = f"a linear layer on frozen BEiT-B, {IMAGES:,} images, {EPOCHS} epochs"
    goals = ratio_goals(sides, ("default", 30, None), ("tuned", 8, None))
    return [
        Row(
            "S4",
            what,
            sides,
            goals,
            setting("torch", "lightning", "timm", "transformers"),
            limit,
            given.device,
        )
    ]


if __name__ == "__main__":
    command(arguments(__doc__, repetitions=3), measure)
