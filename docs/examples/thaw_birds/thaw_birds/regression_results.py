"""What the engine does for regression: it records, publishes and predicts numbers."""

from collections.abc import Iterator
from typing import Any

import pandas as pd
from torch import Tensor

from datamodules.labelled import LabelledDataModule
from engine.kinds.base import TableResults
from engine.kinds.contents import table_of
from engine.prediction.table_writer import OutputColumns
from engine.trained_run import TrainedRun
from lightning_modules.loggers.base import Content
from reports.record import RunRecord
from thaw_birds.regression_metrics import RegressionResult
from thaw_birds.regression_page import largest_errors


class RegressionResults(TableResults):
    """Records, publishes and predicts numbers."""

    def record(
        self,
        result: RegressionResult,
        datamodule: LabelledDataModule[Any],  # noqa: ARG002
    ) -> dict[str, Any]:
        """Return the test part of metrics.json.

        It has the metrics, the number of samples `n`, and the lowest and highest label and
        prediction.
        """
        ranges = {}
        if result.samples is not None:
            _, predictions, labels = result.samples
            ranges = {"label_range": _range(labels), "prediction_range": _range(predictions)}
        return {"n": result.count, **result.metrics, **ranges}

    def predictions(
        self, result: RegressionResult, datamodule: LabelledDataModule[Any], split: str
    ) -> pd.DataFrame | None:
        """Return label and prediction of each sample."""
        if result.samples is None:
            return None
        index, predictions, labels = result.samples
        column, values = datamodule.reference(split, index.tolist())
        return pd.DataFrame(
            {
                "index": index.numpy(),
                "label": labels.numpy(),
                "prediction": predictions.numpy(),
                column: values,
            }
        )

    def contents(self, run: RunRecord) -> Iterator[tuple[str, str, Content]]:
        """Yield the table of the largest errors."""
        if run.predictions is not None:
            errors = largest_errors(run.predictions)
            yield "the table test/mistakes", "test/mistakes", table_of(errors)

    def columns(self, run: TrainedRun) -> OutputColumns:  # noqa: ARG002 - the interface's
        """Return the column `prediction`."""

        def rows(predictions: Tensor) -> list[dict[str, Any]]:
            return [{"prediction": value} for value in predictions.tolist()]

        return OutputColumns({"prediction": float}, rows)


def _range(values: Tensor) -> list[float]:
    return [float(values.min()), float(values.max())]
