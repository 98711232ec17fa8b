"""Takes a network's first layer from the training images, before anything is trained."""

from typing import Any

import lightning

from lightning_modules.base import Task
from lightning_modules.networks.features import BackboneError
from lightning_modules.networks.image_backbones import ImageEncoder


class FirstLayerFromData(lightning.Callback):
    """Has a backbone that can do so, `whitened_net`, fit its first layer.

    It acts before a checkpoint is restored, so that a resumed run keeps the layer it has, and before the network is wrapped,
    on the same images in every process.
    """

    def __init__(self, images: int = 5000) -> None:
        """State how many training images are looked at."""
        if images < 1:
            msg = f"callbacks.first_layer.images: received {images}; 1 or more are needed"
            raise BackboneError(msg)
        self.images = images

    def setup(self, trainer: lightning.Trainer, pl_module: lightning.LightningModule, stage: str) -> None:
        """Fit the layer where a training begins.

        Raises:
            BackboneError: If the backbone has no layer that takes anything from data.
        """
        if stage != "fit" or trainer.ckpt_path is not None or not isinstance(pl_module, Task):
            return
        datamodule: Any = trainer.datamodule  # type: ignore[attr-defined]
        features = pl_module.network.get_submodule("features")
        fits = isinstance(features, ImageEncoder) and features.fit_first_layer(datamodule.first_images(self.images))
        if not fits:
            msg = "callbacks.first_layer: this backbone has no first layer that is taken from data; whitened_net has"
            raise BackboneError(msg)
