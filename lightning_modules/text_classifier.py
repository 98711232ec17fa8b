"""Text classification: any encoder, frozen or fine-tuned, with a linear or BiGRU head."""

from typing import Any

from torch import nn

from lightning_modules.classification import ClassificationTask
from lightning_modules.text_task import TextTask


class TextClassifier(TextTask, ClassificationTask):
    """The models of Alghamdi, Lin & Luo (Knowledge-Based Systems 274, 2023) with any encoder."""

    def __init__(
        self,
        backbone: str | dict[str, Any] | nn.Module,
        num_classes: int,
        **settings: Any,  # noqa: ANN401 - those of the bases
    ) -> None:
        """Build the network.

        Args:
            backbone: See `TextTask`.
            num_classes: K.
            settings: Arguments of `TextTask` and of `Task`.
        """
        super().__init__(backbone, num_classes=num_classes, **settings)
