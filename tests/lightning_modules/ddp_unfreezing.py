"""One of two ranks that unfreeze layers, started by a test.

Each rank writes a hash of its weights after every epoch.
"""

import hashlib
import os
import sys
from functools import partial
from pathlib import Path

import lightning

from datamodules.image_samples import SAMPLE_CLASSES, SampleImagesDataModule
from lightning_modules.callbacks.layer_unfreezing import LayerUnfreezing
from lightning_modules.image_classifier import ImageClassifier
from lightning_modules.optim.schedules import onecycle, plateau


class Watch(lightning.Callback):
    def __init__(self, folder: Path) -> None:
        self.rank, self.folder = os.environ["RANK"], folder

    def on_train_batch_start(
        self,
        trainer: lightning.Trainer,
        pl_module: lightning.LightningModule,
        batch: dict,
        batch_idx: int,
    ) -> None:
        if trainer.global_step == 0:
            (self.folder / f"first{self.rank}.txt").write_text(str(batch["index"].tolist()))

    def on_train_epoch_end(self, trainer: lightning.Trainer, pl_module: ImageClassifier) -> None:
        digest = hashlib.sha256()
        for parameter in pl_module.network.parameters():
            digest.update(parameter.detach().numpy().tobytes())
        with (self.folder / f"rank{self.rank}.txt").open("a") as file:
            file.write(f"{digest.hexdigest()}\n")


def main(folder: Path, schedule: str) -> None:
    lightning.seed_everything(1, verbose=False)
    data = SampleImagesDataModule(
        rows={"train": 80, "val": 20, "test": 20}, folder="", files={"train": "", "val": "", "test": ""},
        classes=list(SAMPLE_CLASSES), num_classes=10, batch_size=8, eval_batch_size=4,
    )  # fmt: skip
    backbone = {"architecture": "small_resnet", "widths": [8, 8, 8], "depth": 1}
    chosen = partial(plateau, patience=0) if schedule == "plateau" else onecycle
    task = ImageClassifier(backbone, 10, lr=0.01, backbone_lr=0.01, schedule=chosen)
    unfreezing = LayerUnfreezing(schedule={0: None, 1: "stages.2", 3: "all"})
    trainer = lightning.Trainer(
        accelerator="cpu", devices=2, strategy="ddp", max_epochs=5, callbacks=[unfreezing, Watch(folder)], logger=False,
        enable_checkpointing=False, enable_progress_bar=False, enable_model_summary=False, use_distributed_sampler=False,
        num_sanity_val_steps=0,
    )  # fmt: skip
    trainer.fit(task, datamodule=data)


if __name__ == "__main__":
    main(Path(sys.argv[1]), sys.argv[2])
