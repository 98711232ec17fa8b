"""Training runs on images: Thaw's, built from its configs, and the loops it is compared with."""

import argparse
import io
import itertools
import tempfile
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import timm
import torch
from omegaconf import DictConfig
from PIL import Image
from torch import Tensor, nn
from torch.nn.functional import cross_entropy
from torch.utils.data import DataLoader, Dataset
from torchvision import transforms

from benchmarks.building import built, composed
from benchmarks.measuring import allow_nondeterminism
from engine.build import RunObjects
from engine.feature_cache.filling import fill_cache
from engine.feature_cache.planning import plan_cache

IMAGES, EPOCHS = 1000, 10
_VAL_IMAGES = 20  # Thaw validates in every epoch, the baselines never
_SEED = 1


class ThawImages:
    """A run of an experiment on the first images of CIFAR-10."""

    def __init__(
        self, experiment: str, given: argparse.Namespace, overrides: Mapping[str, Any]
    ) -> None:
        """Store what to run.

        Args:
            experiment: Name of the experiment.
            given: Command-line arguments of the benchmark.
            overrides: Overrides as dotted key -> value.
        """
        self.experiment, self.given, self.overrides = experiment, given, dict(overrides)
        self.place = tempfile.TemporaryDirectory(prefix="thaw-benchmark-")
        self.runs = 0

    def build(self, *, stored: bool = True) -> tuple[DictConfig, RunObjects]:
        """Build data, network and trainer, with an empty feature cache.

        Args:
            stored: Whether to train on stored features.

        Returns:
            The config and the objects of the run.
        """
        self.runs += 1
        folder = Path(self.place.name) / str(self.runs)
        base = {
            "seed": _SEED,
            "test": False,
            "trainer.max_epochs": EPOCHS,
            "data.train_rows": IMAGES + _VAL_IMAGES,
            "data.val_fraction": _VAL_IMAGES / (IMAGES + _VAL_IMAGES),
            "data.files.val": None,
            "cache.dir": str(folder / "features"),
            "cache.features": stored,
        }
        cfg = composed(self.experiment, self.given, {**base, **self.overrides})
        return cfg, built(cfg, folder)

    def run(self) -> Callable[[], object]:
        """Prepare a run; return the function that computes the features and trains."""
        cfg, objects = self.build()

        def train() -> None:
            fill_cache(plan_cache(cfg, objects, None), objects)
            objects.trainer.fit(objects.task, datamodule=objects.datamodule)

        return train


class Pictures(Dataset[tuple[Tensor, int]]):
    """Reads one image at a time with Pillow and torchvision, as most scripts do."""

    def __init__(
        self, data_dir: Path, mean: tuple[float, ...], std: tuple[float, ...], *, flip: bool
    ) -> None:
        table = pq.read_table(data_dir / "cifar10" / "train.parquet").slice(0, IMAGES)
        self.cells, self.labels = table.column("img").to_pylist(), table.column("label").to_pylist()
        resize = transforms.Resize(224, transforms.InterpolationMode.BICUBIC)
        mirror = [transforms.RandomHorizontalFlip()] if flip else []
        self.chain = transforms.Compose(
            [resize, *mirror, transforms.ToTensor(), transforms.Normalize(mean, std)]
        )

    def __len__(self) -> int:
        return len(self.labels)

    def __getitem__(self, position: int) -> tuple[Tensor, int]:
        image = Image.open(io.BytesIO(self.cells[position]["bytes"])).convert("RGB")
        return self.chain(image), self.labels[position]


def endless(loader: DataLoader[Any]) -> Iterator[Any]:
    """Repeat a loader without end."""
    return itertools.chain.from_iterable(itertools.repeat(loader))


def plain_steps(
    network: nn.Module,
    loader: DataLoader[Any],
    optimizer: torch.optim.Optimizer,
    steps: int,
    *,
    half: bool,
    device: str,
) -> None:
    """Run the loop of the reference: read, forward, backward, step."""
    allow_nondeterminism()
    network.train()
    for pixels, labels in itertools.islice(endless(loader), steps):
        with torch.autocast(device, torch.bfloat16, enabled=half):
            loss = cross_entropy(network(pixels.to(device)).float(), labels.to(device))
        optimizer.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        optimizer.step()


def timm_network(name: str, head: nn.Module, device: str) -> nn.Module:
    """Return a timm backbone with random weights, followed by a head."""
    torch.manual_seed(_SEED)
    backbone = timm.create_model(name, pretrained=False, num_classes=0)
    return nn.Sequential(backbone, head).to(device)


def gradient_difference(
    stored: ThawImages, baseline: nn.Module | None = None
) -> tuple[float, float]:
    """Compare training on stored features with training without them, on one batch.

    The batch is not flipped. Both sides run on the CPU, in the precision of the run.

    Args:
        stored: The run.
        baseline: Network of the baseline, a backbone and a head. It gets Thaw's weights and pixels
            and replaces Thaw's training without stored features. Both sides then run in float32.

    Returns:
        Absolute difference of the loss, and relative difference of the gradient of all trainable
        parameters in the Euclidean norm.
    """
    results = []
    plain = ThawImages(
        stored.experiment, stored.given, {**stored.overrides, "data.augmentation.flip": False}
    )
    plain.overrides |= {
        "trainer.accelerator": "cpu",
        "data.train_rows": 2 * _VAL_IMAGES,
        "data.val_fraction": 0.5,
    }
    if baseline is not None:
        plain.overrides["trainer.precision"] = "32-true"
    for use_stored in (True, False):
        cfg, objects = plain.build(stored=use_stored)
        if use_stored:
            fill_cache(plan_cache(cfg, objects, None), objects)
        task = objects.task.eval()  # without the head's dropout
        batch = next(iter(objects.datamodule.train_dataloader()))
        network: nn.Module = task.network
        if baseline is None or use_stored:
            with torch.autocast(
                "cpu", torch.bfloat16, enabled=str(objects.trainer.precision) == "bf16-mixed"
            ):
                loss, _ = task.loss_and_predictions(batch)  # type: ignore[operator]
        else:
            network = baseline.eval()
            network.load_state_dict(
                dict(zip(baseline.state_dict(), _weights(task.network), strict=True))
            )
            pixels = task.network.get_submodule("features").preprocess(batch["pixel_values"])  # type: ignore[operator]
            loss = cross_entropy(network(pixels), batch["labels"])
        loss.backward()
        grads = [p.grad.flatten() for p in network.parameters() if p.grad is not None]
        results.append((float(loss.detach()), torch.cat(grads)))
    (loss_a, grad_a), (loss_b, grad_b) = results
    return abs(loss_a - loss_b), float((grad_a - grad_b).norm() / grad_b.norm())


def _weights(network: nn.Module) -> list[Tensor]:
    """Return the tensors of backbone and head in the order of the baseline's state dict."""
    parts = (network.get_submodule("features.model"), network.get_submodule("head"))
    return [tensor for part in parts for tensor in part.state_dict().values()]


def backbone_operations(name: str, size: int = 224) -> float:
    """Return the floating-point operations of a forward pass of one image."""
    from torch.utils.flop_counter import FlopCounterMode

    network = timm.create_model(name, pretrained=False, num_classes=0).eval()
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        network(torch.from_numpy(np.zeros((1, 3, size, size), np.float32)))
    return float(counter.get_total_flops())
