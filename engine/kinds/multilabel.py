"""Multi-label classification: any number of labels for each sample."""

from collections.abc import Iterator
from typing import Any

import pandas as pd
import torch
from torch import Tensor

from datamodules.labelled import LabelledDataModule
from datamodules.reading.labels import SEPARATOR
from engine.kinds.base import TableResults
from engine.kinds.contents import class_table, mistake_pictures, table_of, thumbnails
from engine.prediction.table_writer import OutputColumns
from engine.trained_run import TrainedRun
from lightning_modules.loggers.base import Content
from lightning_modules.metrics.multilabel import MultilabelResult
from lightning_modules.multilabel import MultilabelTask
from reports.kinds.multilabel import wrong_labels
from reports.mistakes import MAX_MISTAKES
from reports.record import RunRecord

PICTURED_MISTAKES = 400  # in all, divided among the labels


class MultilabelResults(TableResults):
    """Records, publishes and predicts labels."""

    def record(
        self, result: MultilabelResult, datamodule: LabelledDataModule[Any]
    ) -> dict[str, Any]:
        """Return the test part of metrics.json.

        It has the metrics, the number of samples `n`, the names of the labels, and for each label
        its metrics, counts and threshold.
        """
        names = datamodule.class_names
        return {
            "n": result.count,
            **result.metrics,
            "classes": names,
            "per_class": dict(zip(names, result.labels, strict=True)),
        }

    def predictions(
        self, result: MultilabelResult, datamodule: LabelledDataModule[Any], split: str
    ) -> pd.DataFrame | None:
        """Return for each sample and label 0 or 1, the predicted 0 or 1, and the probability."""
        if result.samples is None:
            return None
        index, probabilities, labels = result.samples
        chosen = probabilities >= result.thresholds
        column, values = datamodule.reference(split, index.tolist())
        columns: dict[str, Any] = {"index": index.numpy()}
        for what, table in (
            ("label", labels.byte()),
            ("prediction", chosen.byte()),
            ("probability", probabilities),
        ):
            for k, name in enumerate(datamodule.class_names):
                columns[f"{what}_{name}"] = table[:, k].numpy()
        return pd.DataFrame({**columns, column: values})

    def pictures(
        self,
        result: MultilabelResult,
        datamodule: LabelledDataModule[Any],
        run: TrainedRun,  # noqa: ARG002 - the interface's
    ) -> pd.DataFrame | None:
        """Return small pictures of the mistakes of each label, for image data."""
        if result.samples is None:
            return None
        index, probabilities, labels = result.samples
        wrong = (probabilities >= result.thresholds) != (labels > 0)
        distance = (probabilities - result.thresholds).abs().masked_fill(~wrong, -1)
        chosen: list[int] = []
        each = max(1, PICTURED_MISTAKES // wrong.shape[1])
        for k in range(wrong.shape[1]):
            order = torch.argsort(distance[:, k], descending=True, stable=True)
            chosen += index[order[: min(each, int(wrong[:, k].sum()))]].tolist()
        return thumbnails(datamodule, list(dict.fromkeys(chosen)))

    def contents(self, run: RunRecord) -> Iterator[tuple[str, str, Content]]:
        """Yield the tables of labels and of wrong labels, and pictures."""
        yield "the table test/classes", "test/classes", class_table(run)
        wrong = wrong_labels(run).sort_values("distance", ascending=False, kind="stable")
        yield "the table test/mistakes", "test/mistakes", table_of(wrong.head(MAX_MISTAKES))
        pictures = mistake_pictures(
            run, wrong, lambda row: f"{row['label']} {row['mistake']} ({row['probability']:.2f})"
        )
        if pictures:
            yield "the pictures", "test/pictures", pictures

    def columns(self, run: TrainedRun) -> OutputColumns:
        """Return the columns `prediction`, with the labels, and `probability_<label>` for each.

        The labels are separated as in the run's data, else by a semicolon. Each label has the
        threshold that the checkpoint contains.
        """
        names = run.class_names
        separator = run.cfg.data.get("label_separator") or SEPARATOR
        probability = [f"probability_{name}" for name in names]
        assert isinstance(run.task, MultilabelTask)  # noqa: S101 - tells the type checker
        thresholds = run.task.thresholds.cpu()

        def rows(probabilities: Tensor) -> list[dict[str, Any]]:
            return [
                {
                    "prediction": separator.join(names[k] for k in chosen.nonzero()[:, 0].tolist()),
                    **dict(zip(probability, values, strict=True)),
                }
                for chosen, values in zip(
                    probabilities >= thresholds, probabilities.tolist(), strict=True
                )
            ]

        return OutputColumns({"prediction": str, **dict.fromkeys(probability, float)}, rows)
