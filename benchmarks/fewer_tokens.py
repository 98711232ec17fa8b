"""Train vision transformers with and without fewer tokens on CIFAR-10, and print a table.

    python -m benchmarks.fewer_tokens --data-dir DIR [--only token_learner fdvit tome] [--seeds 3]

Each family has a plain network, which is its baseline, and all of its networks read the same images
for the same number of epochs. The accuracy is the mean over the seeds with the 95 % interval of
Student's t; a run tests its best epoch. Seconds are those of an epoch's training, the median over
epochs and seeds.
"""

import argparse
import os
import statistics
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq

from benchmarks.measuring import setting
from reports.groups import summarize
from run_folders.run_folder import RunFolder


@dataclass(frozen=True)
class Family:
    """Networks that are compared.

    Attributes:
        experiment: The experiment, with changes that shorten it.
        images: Number of training images, of which the tenth part is the validation split, and
            number of test images.
        epochs: Number of epochs.
        variants: Name -> overrides; the first is the baseline.
    """

    experiment: tuple[str, ...]
    images: tuple[int, int]
    epochs: int
    variants: dict[str, tuple[str, ...]]


FAMILIES = {
    "token_learner": Family(
        ("experiment=cifar10_token_learner",),
        images=(2000, 500),
        epochs=5,
        variants={
            "ViT, 64 tokens": ("model.backbone.tokens=null",),
            "TokenLearner v1.0, 8 tokens": (),
            "TokenLearner v1.1, 8 tokens": ("model.backbone.version=v1.1",),
        },
    ),
    "fdvit": Family(
        ("experiment=cifar10_fdvit",),
        images=(1000, 500),
        epochs=4,
        variants={
            "FDViT, no reconstruction": ("model.reconstruction=0",),
            "FDViT, reconstruction 0.03": (),
        },
    ),
    "tome": Family(
        (
            "experiment=cifar10_deit_tome",
            "model.backbone={architecture: deit_tiny_distilled_patch16_224}",
            "model.backbone_lr=5e-4",
        ),
        images=(200, 200),
        epochs=2,
        variants={
            "DeiT-Ti": ("model.merge_tokens=0",),
            "DeiT-Ti, r = 8": ("model.merge_tokens=8",),
            "DeiT-Ti, r = 13": ("model.merge_tokens=13",),
            "DeiT-Ti, r = 13, attention not proportional": (
                "model.merge_tokens={merged: 13, proportional: false}",
            ),
        },
    ),
}


def main() -> None:
    """Train all networks and print the table."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--data-dir", type=Path, default=Path("data"), help="folder of the datasets"
    )
    parser.add_argument("--only", nargs="+", choices=FAMILIES, default=list(FAMILIES))
    parser.add_argument("--seeds", type=int, default=3)
    given = parser.parse_args()
    print(setting("torch", "timm", "lightning"), flush=True)
    print("| network | n train | epochs | seeds | n test ", end="")
    print("| accuracy | 95 % interval | s an epoch | G mult |")
    print("|---|---|---|---|---|---|---|---|---|", flush=True)
    for name in given.only:
        for line in measured(FAMILIES[name], given.data_dir.resolve(), given.seeds):
            print(line, flush=True)


def measured(family: Family, data_dir: Path, seeds: int) -> Iterator[str]:
    """Train the networks of a family; yield a line of the table for each."""
    from engine.launch import train

    with tempfile.TemporaryDirectory() as work:
        subset(data_dir, Path(work), family.images)
        here = Path.cwd()
        os.chdir(work)
        try:
            for number, (name, overrides) in enumerate(family.variants.items()):
                runs = []
                for seed in range(1, seeds + 1):
                    shortened = (
                        f"seed={seed}",
                        f"trainer.max_epochs={family.epochs}",
                        f"paths.data_dir={work}",
                        f"hydra.run.dir={work}/{number}/{seed}",
                    )
                    runs.append(RunFolder(train((*family.experiment, *overrides, *shortened))))
                accuracies = [run.read_json("metrics.json")["test"]["acc"] for run in runs]
                seconds = [float(r["train/seconds"]) for run in runs for r in run.read_history()]
                accuracy = summarize(accuracies)
                low, high = accuracy.interval or (accuracy.mean, accuracy.mean)
                yield (
                    f"| {name} | {family.images[0] * 9 // 10:,} | {family.epochs} | {seeds} "
                    f"| {family.images[1]:,} | {accuracy.mean:.4f} | {low:.4f} to {high:.4f} "
                    f"| {statistics.median(seconds):.1f} | {multiplications_of(runs[0].path):.4f} |"
                )
        finally:
            os.chdir(here)


def subset(data_dir: Path, folder: Path, images: tuple[int, int]) -> None:
    """Write the first images of CIFAR-10's parts, train and test."""
    (folder / "cifar10").mkdir()
    for part, count in zip(("train", "test"), images, strict=True):
        table = pq.read_table(data_dir / "cifar10" / f"{part}.parquet").slice(0, count)
        pq.write_table(table, folder / "cifar10" / f"{part}.parquet")


def multiplications_of(run: Path) -> float:
    """Return the multiplications of a run's network for one image, in 1e9."""
    import torch

    from engine.predict import open_run
    from lightning_modules.networks.dividing.counting import multiplications

    features: Any = open_run(run, "cpu").task.features
    pixels = torch.zeros(1, 3, *features.config["size"])
    return multiplications(features.model, partial(features.model, pixels)) / 1e9


if __name__ == "__main__":
    main()
