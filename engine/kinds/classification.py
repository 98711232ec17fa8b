"""Classification: one class for each sample."""

from collections.abc import Iterator
from typing import Any

import pandas as pd
import torch
from torch import Tensor

from datamodules.labelled import LabelledDataModule
from engine.kinds.base import TableResults
from engine.kinds.contents import class_table, confusion, mistake_pictures, table_of, thumbnails
from engine.prediction.table_writer import OutputColumns
from engine.trained_run import TrainedRun
from lightning_modules.loggers.base import Content
from lightning_modules.metrics.classification import ClassificationResult, predicted
from reports.mistakes import MAX_MISTAKES, misclassified_samples
from reports.record import RunRecord

PICTURED_MISTAKES = 300
PICTURED_OF_CLASS = 8
PICTURED_OF_ALL_CLASSES = 400


class ClassificationResults(TableResults):
    """Records, publishes and predicts classes."""

    def record(
        self, result: ClassificationResult, datamodule: LabelledDataModule[Any]
    ) -> dict[str, Any]:
        """Return the test part of metrics.json.

        It has the metrics, the number of samples `n`, the per-class table, the confusion matrix (a
        row per label) and the calibration bins.
        """
        names = datamodule.class_names
        return {
            "n": result.count,
            **result.metrics,
            "classes": names,
            "per_class": dict(zip(names, result.classes, strict=True)),
            "confusion_matrix": result.confusion,
            "calibration": result.calibration,
        }

    def predictions(
        self, result: ClassificationResult, datamodule: LabelledDataModule[Any], split: str
    ) -> pd.DataFrame | None:
        """Return label, prediction and class probabilities of each sample."""
        if result.samples is None:
            return None
        index, probabilities, labels = result.samples
        names = datamodule.class_names
        _, classes = predicted(probabilities)
        column, values = datamodule.reference(split, index.tolist())
        return pd.DataFrame(
            {
                "index": index.numpy(),
                "label": [names[i] for i in labels.tolist()],
                "prediction": [names[i] for i in classes.tolist()],
                **{
                    f"probability_{name}": probabilities[:, k].numpy()
                    for k, name in enumerate(names)
                },
                column: values,
            }
        )

    def pictures(
        self,
        result: ClassificationResult,
        datamodule: LabelledDataModule[Any],
        run: TrainedRun,  # noqa: ARG002 - the interface's
    ) -> pd.DataFrame | None:
        """Return small pictures of misclassified samples and of each class, for image data."""
        if result.samples is None:
            return None
        chosen = _pictured(*result.samples, len(datamodule.class_names))
        return thumbnails(datamodule, chosen)

    def contents(self, run: RunRecord) -> Iterator[tuple[str, str, Content]]:
        """Yield the tables of classes and of mistakes, pictures, and the confusion matrix."""
        yield "the table test/classes", "test/classes", class_table(run)
        if run.predictions is not None:
            wrong = misclassified_samples(run).head(MAX_MISTAKES)
            reference = str(run.predictions.columns[-1])
            columns = ["index", "label", "prediction", "confidence", "reference"]
            mistakes = table_of(wrong[columns].rename(columns={"reference": reference}))
            yield "the table test/mistakes", "test/mistakes", mistakes
        pictures = mistake_pictures(
            run,
            misclassified_samples(run),
            lambda row: f"{row['label']} taken for {row['prediction']} ({row['confidence']:.2f})",
        )
        if pictures:
            yield "the pictures", "test/pictures", pictures
        yield "the confusion matrix", "test/confusion", confusion(run)

    def columns(self, run: TrainedRun) -> OutputColumns:
        """Return the columns `prediction` and `probability_<class>` for each class."""
        names = run.class_names
        probability = [f"probability_{name}" for name in names]

        def rows(probabilities: Tensor) -> list[dict[str, Any]]:
            _, classes = predicted(probabilities)
            return [
                {"prediction": names[k], **dict(zip(probability, values, strict=True))}
                for k, values in zip(classes.tolist(), probabilities.tolist(), strict=True)
            ]

        return OutputColumns({"prediction": str, **dict.fromkeys(probability, float)}, rows)


def _pictured(index: Tensor, probabilities: Tensor, labels: Tensor, num_classes: int) -> list[int]:
    """Return the indices of the samples whose pictures the report shows.

    They are the most confident mistakes, and the first samples of each class.
    """
    _, classes = predicted(probabilities)
    wrong = (classes != labels).nonzero()[:, 0]
    confidence = probabilities[wrong].max(dim=1).values if len(wrong) else torch.empty(0)
    order = torch.argsort(confidence, descending=True, stable=True)[:PICTURED_MISTAKES]
    chosen = wrong[order].tolist()
    each = max(1, min(PICTURED_OF_CLASS, PICTURED_OF_ALL_CLASSES // num_classes))
    for k in range(num_classes):
        chosen += (labels == k).nonzero()[:each, 0].tolist()
    return list(dict.fromkeys(index[chosen].tolist()))
