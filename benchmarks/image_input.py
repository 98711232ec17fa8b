"""Images a second of the input pipeline: Thaw against a chain of Pillow and torchvision.

    python -m benchmarks.image_input [--data-dir DIR]

Both decode the same JPEG files of 32 x 32 pixels, flip half of them and rotate them by up to 15
degrees. The output is normalised float tensors of the network's input size. The reference works
image by image; it decodes and resizes each image again in each epoch. Thaw decodes once, augments a
batch at the stored size and resizes it last. Thaw is therefore measured twice: the first epoch,
which decodes, and any later epoch.

The tuned baseline reads with two worker processes. If the data folder has no cifar10/train.parquet,
synthetic images are used.
"""

import argparse
import io
from collections.abc import Callable
from functools import partial
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import torch
from PIL import Image
from torch.nn.functional import interpolate
from torch.utils.data import DataLoader, Dataset
from torchvision import transforms

from benchmarks.machine import bytes_per_second
from benchmarks.measuring import alternate, setting
from benchmarks.rows import Limit, Row, Side, arguments, command, ratio_goals
from datamodules.batching.order import EvaluationBatches
from datamodules.image_samples import sample_image
from datamodules.images.rows import EncodedImage
from datamodules.images.storage import DecodedImages, Decoding
from datamodules.images.storing import store
from datamodules.images.transforms import Augmentation, Augmenter
from lightning_modules.networks.backbones.pixels import PixelInput

_IMAGES, _BATCH, _WORKERS = 4096, 64, 2
_SOME = 512  # images at 224 pixels
# Side of the network's input (None: as stored) -> required ratio to the default.
_AT_LEAST = {None: 5.0, 224: 1.5}
_MEAN = _STD = (0.5, 0.5, 0.5)
_AUGMENTATION = Augmentation(crop_padding=0, flip=True, rotation=15.0, rand_augment=None)


def encoded_images(data_dir: Path | None) -> list[bytes]:
    """Return the JPEG files for the measurement, from CIFAR-10 or synthetic."""
    path = (data_dir or Path("data")) / "cifar10" / "train.parquet"
    if path.is_file():
        cells = pq.read_table(path, columns=["img"]).column("img").slice(0, _IMAGES).to_pylist()
        return [cell["bytes"] for cell in cells]
    rng, images = np.random.default_rng(0), []
    for i in range(_IMAGES):
        buffer = io.BytesIO()
        Image.fromarray(sample_image(i % 10, rng)).save(buffer, "JPEG", quality=75)
        images.append(buffer.getvalue())
    return images


class Reference(Dataset[torch.Tensor]):
    """Reads one image at a time, as most scripts do."""

    def __init__(self, images: list[bytes], size: int | None) -> None:
        self.images = images
        steps = (
            [] if size is None else [transforms.Resize(size, transforms.InterpolationMode.BICUBIC)]
        )
        self.chain = transforms.Compose(
            [
                *steps,
                transforms.RandomHorizontalFlip(),
                transforms.RandomRotation(15, transforms.InterpolationMode.BILINEAR),
                transforms.ToTensor(),
                transforms.Normalize(_MEAN, _STD),
            ]
        )

    def __len__(self) -> int:
        return len(self.images)

    def __getitem__(self, position: int) -> torch.Tensor:
        result: torch.Tensor = self.chain(
            Image.open(io.BytesIO(self.images[position])).convert("RGB")
        )
        return result


def one_by_one(images: Reference, workers: int) -> DataLoader[torch.Tensor]:
    """Return a loader of the reference; its worker processes persist across epochs."""
    return DataLoader(
        images, batch_size=_BATCH, num_workers=workers, persistent_workers=workers > 0
    )


def read(loader: DataLoader[torch.Tensor]) -> None:
    """Read an epoch."""
    for _ in loader:
        pass


def decode(images: list[bytes]) -> DecodedImages:
    """Decode all images, which Thaw does once a run."""
    rows = (EncodedImage(i, content, 0, "train", i + 1) for i, content in enumerate(images))
    kept, _ = store(rows, "train", Decoding(50_000_000, None), in_memory=True)
    assert isinstance(kept, DecodedImages)  # noqa: S101 - tells the type checker
    return kept


def read_epoch(images: DecodedImages, size: int | None) -> None:
    """Run an epoch of Thaw's pipeline on decoded images."""
    augmenter = Augmenter(_AUGMENTATION, len(images), seed=1, epoch=0)
    network_input = PixelInput(_MEAN, _STD, None if size is None else (size, size), "bicubic")
    loader = DataLoader(
        images,
        batch_sampler=EvaluationBatches(range(len(images)), _BATCH),
        collate_fn=lambda batch: batch,
    )
    for batch in loader:
        network_input(augmenter(batch["pixel_values"], batch["index"]))


def read_first_epoch(images: list[bytes], size: int | None) -> None:
    """Run the first epoch, which decodes the images."""
    read_epoch(decode(images), size)


def difference(images: list[bytes], size: int | None) -> tuple[float, float]:
    """Compare Thaw's pixels with the reference's, without random augmentation.

    Args:
        images: JPEG files.
        size: Side of the network's input in pixels; None keeps that of the images.

    Returns:
        The largest difference, in units of 1/255, and the share of values, 0..1, that differ by
        more than 1/255.
    """
    images = images[:_BATCH]
    baseline = Reference(images, size)
    baseline.chain.transforms = [
        step for step in baseline.chain.transforms if "Random" not in type(step).__name__
    ]
    stored = decode(images)
    pixels = torch.stack([stored.pixels(i) for i in range(len(images))])
    ours = PixelInput(_MEAN, _STD, None if size is None else (size, size), "bicubic")(pixels)
    off = (ours - torch.stack([baseline[i] for i in range(len(images))])).abs() * _STD[0] * 255
    return float(off.max()), float((off > 1 + 1e-3).float().mean())


def resize(pixels: torch.Tensor, size: int) -> None:
    """Resize each batch of bytes, which no pipeline avoids at a larger size."""
    for batch in torch.split(pixels, _BATCH):
        interpolate(batch, size=(size, size), mode="bicubic", antialias=True)


def measure(given: argparse.Namespace) -> list[Row]:
    """Measure at the stored size and at 224 pixels."""
    images = encoded_images(given.data_dir)
    kept, rows = decode(images), []
    for size, least in _AT_LEAST.items():
        count = len(images) if size is None else min(_SOME, len(images))
        some, stored = images[:count], kept.take(range(count))
        work: dict[str, Callable[[], object]] = {
            "Thaw": partial(read_epoch, stored, size),
            "Thaw, first epoch": partial(read_first_epoch, some, size),
            "default": partial(read, one_by_one(Reference(some, size), workers=0)),
            "tuned": partial(read, one_by_one(Reference(some, size), workers=_WORKERS)),
        }
        pixels = torch.stack([stored.pixels(i) for i in range(count)])
        if size is not None:
            work["limit"] = partial(resize, pixels, size)
        times = alternate(work, given.repetitions)
        quality = {name: f"{count / times[name].median:,.0f} images/s" for name in work}
        largest, share = difference(some, size)
        quality["Thaw"] += (
            f"; without random augmentation at most {largest:.1f}/255 off the baseline, "
            f"{share:.1e} of the values by over 1/255"
        )
        sides = {name: Side(times[name].seconds, quality=quality[name]) for name in work}
        name = "32" if size is None else str(size)
        goals = ratio_goals(sides, ("default", least, None))
        written = 4 * pixels.numel()
        limit = Limit(written / bytes_per_second(), f"writing {written / 2**20:.0f} MiB of floats")
        if size is not None:
            limit = Limit(times["limit"].median, "the resize of the bytes alone")
        rotated = (
            ""
            if size is None
            else f" (Thaw rotates at 32 and resizes last, the baseline rotates at {size})"
        )
        what = (
            f"an epoch of {count} JPEG images read, flipped, rotated and normalised "
            f"at {name} pixels{rotated}"
        )
        kept_sides = {name: side for name, side in sides.items() if name != "limit"}
        rows.append(
            Row(
                f"S10 {name}",
                what,
                kept_sides,
                goals,
                setting("torch", "torchvision", "pillow"),
                limit,
            )
        )
    return rows


if __name__ == "__main__":
    command(arguments(__doc__, repetitions=7, on_gpus=False), measure)
