"""Images a second of the input pipeline against the reference's chain of Pillow and torchvision, image by image.

Both decode the same JPEG files of 32 x 32 pixels, flip half of them, turn them by up to 15 degrees and give normalised float
tensors of the model's size. The reference decodes and resizes each image anew in each epoch; Thaw decodes once, changes a
batch at the stored size and resizes it last. So Thaw is measured twice: an epoch as it is trained (decoded before), and the
first epoch with the decoding.

    python -m benchmarks.image_input [--data-dir DIR]

Without a folder that holds cifar10/train.parquet, images are drawn.
"""

import argparse
import io
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import torch
from PIL import Image
from torch.utils.data import DataLoader, Dataset
from torchvision import transforms

from benchmarks.measuring import Timing, alternate, setting
from datamodules.batch_order import EvaluationBatches
from datamodules.image_rows import EncodedImage
from datamodules.image_samples import sample_image
from datamodules.image_storage import DecodedImages, Decoding, store
from datamodules.image_transforms import Augmentation, Augmenter
from lightning_modules.networks.pixels import PixelInput

_IMAGES, _BATCH, _REPETITIONS = 4096, 64, 7
_MEAN = _STD = (0.5, 0.5, 0.5)
_AUGMENTATION = Augmentation(crop_padding=0, flip=True, rotation=15.0, rand_augment=None)


def encoded_images(data_dir: Path | None) -> list[bytes]:
    """The JPEG files that are measured on."""
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
    """One image at a time, as most scripts do it."""

    def __init__(self, images: list[bytes], size: int | None) -> None:
        self.images = images
        steps = [] if size is None else [transforms.Resize(size, transforms.InterpolationMode.BICUBIC)]
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
        result: torch.Tensor = self.chain(Image.open(io.BytesIO(self.images[position])).convert("RGB"))
        return result


def decode(images: list[bytes]) -> DecodedImages:
    """What Thaw does once a run."""
    rows = (EncodedImage(i, content, 0, "train", i + 1) for i, content in enumerate(images))
    kept, _ = store(rows, "train", Decoding(50_000_000, None), in_memory=True)
    assert isinstance(kept, DecodedImages)  # noqa: S101 - tells the type checker
    return kept


def read_epoch(images: DecodedImages, size: int | None) -> None:
    """An epoch of Thaw's pipeline."""
    augmenter = Augmenter(_AUGMENTATION, len(images), seed=1, epoch=0)
    network_input = PixelInput(_MEAN, _STD, None if size is None else (size, size), "bicubic")
    loader = DataLoader(images, batch_sampler=EvaluationBatches(range(len(images)), _BATCH), collate_fn=lambda batch: batch)
    for batch in loader:
        network_input(augmenter(batch["pixel_values"], batch["index"]))


def main() -> None:
    """Measure at the stored size and at 224 pixels, and print a row for each."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data-dir", type=Path, default=None)
    images = encoded_images(parser.parse_args().data_dir)
    kept = decode(images)
    print(setting("torch", "torchvision", "pillow"))
    print(f"{len(images)} images, batches of {_BATCH}, {_REPETITIONS} repetitions; images a second, median (spread)\n")
    print("| input | Thaw | Thaw, first epoch | reference chain | ratio | ratio, first epoch |")
    print("|---|---|---|---|---|---|")
    for size in (None, 224):
        count = len(images) if size is None else min(512, len(images))
        some, stored = images[:count], kept.take(range(count))
        peer = Reference(some, size)

        def chain(peer: Reference = peer) -> None:
            for _ in DataLoader(peer, batch_size=_BATCH):
                pass

        times = alternate(
            {
                "thaw": lambda stored=stored, size=size: read_epoch(stored, size),  # type: ignore[misc]
                "first": lambda some=some, size=size: read_epoch(decode(some), size),  # type: ignore[misc]
                "peer": chain,
            },
            _REPETITIONS,
        )
        print(_row(size, count, times))


def _row(size: int | None, count: int, times: dict[str, Timing]) -> str:
    cells = [f"{count / times[name].median:,.0f} ({times[name].spread:.0%})" for name in ("thaw", "first", "peer")]
    ratios = [f"{times['peer'].median / times[name].median:.1f}" for name in ("thaw", "first")]
    return f"| {'32, not resized' if size is None else size} | {' | '.join(cells)} | {' | '.join(ratios)} |"


if __name__ == "__main__":
    main()
