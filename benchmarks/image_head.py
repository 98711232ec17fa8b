"""Ten epochs of a linear layer on a frozen BEiT-B: Thaw against Hugging Face's Trainer.

    python -m benchmarks.image_head --data-dir DIR

Both sides train on 1,000 images with the same timm network, batches of 10 and AdamW with a learning
rate of 2e-5. The weights are random, so nothing is downloaded. The Trainer reads every image with
Pillow and runs the whole network in each epoch, in float32 or in bfloat16. That takes most of an
hour, so a sample of its steps is measured and extrapolated.
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
from benchmarks.measuring import allow_nondeterminism, now, setting
from benchmarks.rows import Limit, Row, Side, arguments, command, ratio_goals

_NAME, _WIDTH, _BATCH = "beit_base_patch16_224", 768, 10
_STEPS = {"default": 6, "tuned": 12}  # of a baseline in each repetition
_GREY = (0.5, 0.5, 0.5)


class HeadOnly(nn.Module):
    """The network in the form that the Trainer expects, frozen except for the linear layer."""

    def __init__(self, device: str) -> None:
        super().__init__()
        self.network = timm_network(_NAME, nn.Linear(_WIDTH, 10), device)
        for parameter in self.network[0].parameters():  # type: ignore[index]
            parameter.requires_grad = False

    def forward(self, pixel_values: Tensor, labels: Tensor) -> dict[str, Tensor]:
        """Return the loss and the logits [B, 10]."""
        logits = self.network(pixel_values)
        return {"loss": cross_entropy(logits, labels), "logits": logits}


class Stamps(TrainerCallback):
    """The seconds from the end of the first step to the end of the last.

    The Trainer's set-up is thereby not measured.
    """

    def on_step_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:  # noqa: ANN401, ARG002 - the Trainer's signature
        """Update the seconds."""
        if state.global_step == 1:
            self.first = now()
        self.seconds = now() - self.first


def _collate(samples: list[tuple[Tensor, int]]) -> dict[str, Tensor]:
    pixels, labels = zip(*samples, strict=True)
    return {"pixel_values": torch.stack(pixels), "labels": torch.tensor(labels)}


def baseline(given: argparse.Namespace, folder: str, *, half: bool) -> Any:  # noqa: ANN401 - untyped
    """Return a function that takes some steps with the Trainer and returns their seconds."""
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
        allow_nondeterminism()
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
        baselines = {name: baseline(given, folder, half=name == "tuned") for name in _STEPS}
        for steps in baselines.values():
            steps()  # warm-up
        for _ in range(given.repetitions):
            train = ours.run()
            start = now()
            train()
            seconds["Thaw"].append(now() - start)
            for name, steps in baselines.items():
                seconds[name].append(steps())
            print(
                ", ".join(f"{name}: {values[-1]:.1f} s" for name, values in seconds.items()),
                flush=True,
            )
    loss, gradient = gradient_difference(ours)
    exact = gradient_difference(ours, HeadOnly("cpu").network)
    quality = (
        f"one batch against training without stored features: loss {loss:.1e}, "
        f"gradient {gradient:.1e} relative; against the baseline's network in float32, "
        f"on Thaw's pixels: loss {exact[0]:.1e}, gradient {exact[1]:.1e}"
    )
    whole = EPOCHS * IMAGES / _BATCH
    sides = {"Thaw": Side(tuple(seconds["Thaw"]), quality=quality)}
    sides |= {
        name: Side(tuple(seconds[name]), share=(_STEPS[name] - 1) / whole) for name in baselines
    }
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
