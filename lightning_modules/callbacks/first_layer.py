"""Takes a network's first layer from the training images, before anything is trained."""

from dataclasses import replace
from typing import Any

import lightning

from lightning_modules.base import Task
from lightning_modules.networks.features import BackboneError
from lightning_modules.networks.image_backbones import ImageEncoder


class FirstLayerFromData(lightning.Callback):
    """Has a backbone that can do so, `whitened_net`, fit the filters of its first layer; its bias trains for some epochs.

    It acts before a checkpoint is restored, so that a resumed run keeps the layer it has, and before the network is wrapped,
    on the same images in every process.
    """

    def __init__(self, images: int = 5000, bias_epochs: int | None = None) -> None:
        """State what is looked at.

        Args:
            images: Training images; all where there are fewer.
            bias_epochs: Epochs after which the layer's bias stays as it is, and nothing has to be computed for its gradient;
                None is never.

        Raises:
            BackboneError: If that is nothing.
        """
        for key, value, least in (("images", images, 1), ("bias_epochs", bias_epochs, 0)):
            if value is not None and value < least:
                msg = f"callbacks.first_layer.{key}: received {value}; {least} or more is needed"
                raise BackboneError(msg)
        self.images, self.bias_epochs = images, bias_epochs

    def setup(self, trainer: lightning.Trainer, pl_module: lightning.LightningModule, stage: str) -> None:
        """Fit the layer where a training begins.

        Raises:
            BackboneError: If the backbone has no layer that takes anything from data, or it is frozen for good.
        """
        if stage != "fit" or not isinstance(pl_module, Task):
            return
        names = [name for name, _ in pl_module.network.named_parameters() if name.startswith("features.")]
        if names and all(pl_module.freezing.first_epoch(name) is None for name in names):
            msg = "callbacks.first_layer: the whole backbone is frozen, its first layer too; leave one of them out"
            raise BackboneError(msg)
        datamodule: Any = trainer.datamodule  # type: ignore[attr-defined]
        features = pl_module.network.get_submodule("features")
        layer = features.fit_first_layer(datamodule.first_images(self.images)) if isinstance(features, ImageEncoder) else None
        if layer is None:
            msg = "callbacks.first_layer: this backbone has no first layer that is taken from data; whitened_net has"
            raise BackboneError(msg)
        if self.bias_epochs is not None:
            ends = {f"features.{layer}.bias": self.bias_epochs}
            pl_module.use_plan(replace(pl_module.freezing, ends=ends))
