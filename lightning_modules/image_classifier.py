"""Image classification: any timm backbone, wholly or partly frozen, with a linear or MLP head."""

from typing import Any

from torch import nn

from lightning_modules.classification import ClassificationTask
from lightning_modules.image_task import ImageTask


class ImageClassifier(ImageTask, ClassificationTask):
    """The models of Malpure, Litake & Ingle (arXiv 2110.05270) with any backbone."""

    def __init__(
        self,
        backbone: str | dict[str, Any] | nn.Module,
        num_classes: int,
        **settings: Any,  # noqa: ANN401 - those of the bases
    ) -> None:
        """Build the network.

        Args:
            backbone: See `ImageTask`.
            num_classes: K.
            settings: Arguments of `ImageTask` and of `Task`.
        """
        super().__init__(backbone, num_classes=num_classes, **settings)
