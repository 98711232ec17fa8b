"""The public names of Thaw. Each is imported when it is used first, so `import thaw` is fast.

`thaw.train` runs a configuration, and `thaw.Run` opens its result. The other names are the parts
for a program of your own with `lightning.Trainer`.
"""

from importlib import import_module
from importlib.metadata import version
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from datamodules.base import TransferDataModule
    from datamodules.image import ImageDataModule
    from datamodules.image_samples import SampleImagesDataModule
    from datamodules.samples import SampleTextDataModule
    from datamodules.scene_samples import SampleScenesDataModule
    from datamodules.segmentation import SegmentationDataModule
    from datamodules.text import TextDataModule
    from lightning_modules.base import Task
    from lightning_modules.callbacks.layer_unfreezing import LayerUnfreezing
    from lightning_modules.head_task import HeadTask
    from lightning_modules.image_classifier import ImageClassifier
    from lightning_modules.losses import CrossEntropy, SegmentationLoss, UpsampledCrossEntropy
    from lightning_modules.multilabel import MultilabelImageClassifier, MultilabelTextClassifier
    from lightning_modules.networks.backbones.features import Features
    from lightning_modules.networks.heads import BiGRUHead, LinearHead, MLPHead
    from lightning_modules.segmenter import Segmenter
    from lightning_modules.text_classifier import TextClassifier
    from run_folders.errors import UserError
    from thaw.run import Run, compare
    from thaw.training import train

__all__ = [
    "BiGRUHead",
    "CrossEntropy",
    "Features",
    "HeadTask",
    "ImageClassifier",
    "ImageDataModule",
    "LayerUnfreezing",
    "LinearHead",
    "MLPHead",
    "MultilabelImageClassifier",
    "MultilabelTextClassifier",
    "Run",
    "SampleImagesDataModule",
    "SampleScenesDataModule",
    "SampleTextDataModule",
    "SegmentationDataModule",
    "SegmentationLoss",
    "Segmenter",
    "Task",
    "TextClassifier",
    "TextDataModule",
    "TransferDataModule",
    "UpsampledCrossEntropy",
    "UserError",
    "compare",
    "train",
]

# Module -> its public names.
_MODULES = {
    "datamodules.base": ["TransferDataModule"],
    "datamodules.image": ["ImageDataModule"],
    "datamodules.image_samples": ["SampleImagesDataModule"],
    "datamodules.samples": ["SampleTextDataModule"],
    "datamodules.scene_samples": ["SampleScenesDataModule"],
    "datamodules.segmentation": ["SegmentationDataModule"],
    "datamodules.text": ["TextDataModule"],
    "lightning_modules.base": ["Task"],
    "lightning_modules.callbacks.layer_unfreezing": ["LayerUnfreezing"],
    "lightning_modules.head_task": ["HeadTask"],
    "lightning_modules.image_classifier": ["ImageClassifier"],
    "lightning_modules.losses": ["CrossEntropy", "SegmentationLoss", "UpsampledCrossEntropy"],
    "lightning_modules.multilabel": ["MultilabelImageClassifier", "MultilabelTextClassifier"],
    "lightning_modules.networks.backbones.features": ["Features"],
    "lightning_modules.networks.heads": ["BiGRUHead", "LinearHead", "MLPHead"],
    "lightning_modules.segmenter": ["Segmenter"],
    "lightning_modules.text_classifier": ["TextClassifier"],
    "run_folders.errors": ["UserError"],
    "thaw.run": ["Run", "compare"],
    "thaw.training": ["train"],
}
_MODULE_OF = {name: module for module, names in _MODULES.items() for name in names}


def __getattr__(name: str) -> Any:  # noqa: ANN401 - any public name
    """Import a public name."""
    if name == "__version__":
        return version("thaw")
    if name not in _MODULE_OF:
        msg = f"module 'thaw' has no attribute {name!r}"
        raise AttributeError(msg)
    from thaw.installation import installation_fault

    fault = installation_fault()
    if fault:
        raise ImportError(fault)
    value = getattr(import_module(_MODULE_OF[name]), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    """Return the public names too, for completion."""
    return sorted({*globals(), *__all__})
