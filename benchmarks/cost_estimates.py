"""Compare what `estimate=true` states before a run with what the run takes, for six experiments.

    python -m benchmarks.cost_estimates --data-dir DIR --texts MINILM --images EFFICIENTNET

The folders hold all-MiniLM-L6-v2 and EfficientNet-Lite0. Each run measures its cost on a few
batches, trains on a part of the data, and its report has both. Seconds exclude the measurement.
"""

import argparse
import subprocess
import sys
import tempfile
from pathlib import Path

from benchmarks.measuring import setting
from reports.cost import estimate_rows
from reports.record import read_run

_TRAIN = Path(__file__).parents[1] / "train.py"
_TEXTS = ("samples={train: 1500, val: 600, test: 600}", "trainer.max_epochs=4")
_IMAGES = (
    "data=cifar10",
    "data.val_fraction=0.25",
    "samples={train: 1200, val: 400, test: 400}",
    "trainer.max_epochs=4",
)
_LAST = ("callbacks=unfreezing", "callbacks.unfreezing.last_blocks=2")
_SHOWN = (
    "seconds an epoch",
    "seconds in all",
    "peak memory",
    "disk for cached features",
    "disk for checkpoints",
)


def experiments(texts: str, images: str) -> dict[str, tuple[str, ...]]:
    """Return name -> overrides.

    Args:
        texts: Folder of a text encoder.
        images: Folder of an image network.
    """
    tweets = (*_TEXTS, f"model.backbone={texts}")
    pictures = (*_IMAGES, f"model.backbone={images}")
    return {
        "sample texts": (),
        "sample images": ("experiment=sample_images",),
        "MiniLM, frozen": ("experiment=minilm_feature", *tweets),
        "MiniLM, last two blocks": ("experiment=minilm_finetune", *tweets, *_LAST),
        "EfficientNet-Lite0, frozen": (*pictures, "model.freeze_backbone=true"),
        "EfficientNet-Lite0, last two blocks": (*pictures, *_LAST),
    }


def main() -> None:
    """Run all experiments and print the table."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--data-dir", type=Path, default=Path("data"))
    parser.add_argument("--texts", type=Path, required=True)
    parser.add_argument("--images", type=Path, required=True)
    given = parser.parse_args()
    print(setting("torch", "lightning", "timm", "transformers"), flush=True)
    print(f"| experiment | {' | '.join(_SHOWN)} |\n|{'---|' * (len(_SHOWN) + 1)}", flush=True)
    chosen = experiments(str(given.texts.resolve()), str(given.images.resolve()))
    with tempfile.TemporaryDirectory() as work:
        for number, (name, overrides) in enumerate(chosen.items()):
            own = (
                f"paths.data_dir={given.data_dir.resolve()}",
                f"cache.dir={work}/features_{number}",
                f"hydra.run.dir={work}/{number}",
                "estimate=true",
            )
            # A process of its own: the peak of a process's memory never falls.
            command = [sys.executable, str(_TRAIN), *overrides, *own]
            subprocess.run(command, check=True, stdout=subprocess.DEVNULL)  # noqa: S603 - our own command
            rows = {row["name"]: row for row in estimate_rows(read_run(Path(work, str(number))))}
            cells = [
                f"{rows[shown]['estimated']}, took {rows[shown]['measured']} "
                f"({rows[shown]['difference']})"
                for shown in _SHOWN
            ]
            print(f"| {name} | {' | '.join(cells)} |", flush=True)


if __name__ == "__main__":
    main()
