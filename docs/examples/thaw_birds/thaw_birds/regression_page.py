"""The report's parts for regression."""

from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import numpy.typing as npt
import pandas as pd
from matplotlib.axes import Axes

from reports import plots
from reports.kinds.base import Card, KindPage, card
from reports.record import RunRecord
from reports.statistics import Interval, percentile_interval, resample_counts

_METRICS = ("mae", "rmse", "r2")
_MAX_ERRORS = 100
_MAX_POINTS = 2000
_SMALLEST_SHARE = 1e-9  # of the variance of all labels; below it, labels are equal

_Array = npt.NDArray[np.float64]


class RegressionPage(KindPage):
    """Metrics with intervals, two plots of the predictions, and the largest errors."""

    template: ClassVar[str] = "kind_regression.html.j2"
    template_folder: ClassVar[Path | None] = Path(__file__).parent / "templates"
    comparison: ClassVar[str] = (
        "Regressions are compared with the sign test on the absolute error of each sample."
    )
    tables: ClassVar[tuple[str, ...]] = ("test/mistakes",)

    def headline(self, run: RunRecord) -> list[Card]:
        """Return MAE, RMSE and R2 with intervals."""
        if not run.test.get("n"):
            return []
        table = run.predictions
        known = {} if table is None else intervals(_floats(table, "prediction", "label"))
        return [card(run, key, known.get(key)) for key in _METRICS]

    def variables(self, run: RunRecord) -> dict[str, Any]:
        """Return the variables of the template."""
        table = run.predictions
        if table is None or table.empty:
            return {}
        points = table.sample(min(len(table), _MAX_POINTS), random_state=0).sort_index()
        errors = largest_errors(table)
        errors["sample"] = errors[errors.columns[-1]].astype(str)
        return {
            "residuals": _residuals(points),
            "predicted": _predicted(points),
            "points": len(points),
            "errors": errors.to_dict("records"),
        }

    def sample_columns(self, predictions: pd.DataFrame) -> list[str]:
        """Return index, reference and label."""
        return [*super().sample_columns(predictions), "label"]

    def scores(self, predictions: pd.DataFrame) -> "pd.Series[Any]":
        """Return the negative absolute error of each sample."""
        return -(predictions["label"] - predictions["prediction"]).abs()


def largest_errors(predictions: pd.DataFrame) -> pd.DataFrame:
    """Return the samples with the largest absolute errors, the largest first.

    Args:
        predictions: Index, label, prediction and reference of each sample.

    Returns:
        At most 100 rows: index, label, prediction, residual (label - prediction) and reference.
    """
    table = predictions.copy()
    table.insert(3, "residual", table["label"] - table["prediction"])
    order = table["residual"].abs().sort_values(ascending=False, kind="stable").index
    return table.loc[order].head(_MAX_ERRORS)


def intervals(values: _Array) -> dict[str, Interval]:
    """Return the 95 % percentile bootstrap intervals of MAE, RMSE and R2 over samples.

    Args:
        values: [N, 2] predictions and labels.

    Returns:
        Metric -> bounds. Nothing for fewer than two samples; no R2 if all labels are equal.
    """
    count = len(values)
    if count < 2:  # noqa: PLR2004
        return {}
    predictions, labels = values.T
    errors, distances = predictions - labels, labels - labels.mean()
    terms = np.column_stack([abs(errors), errors**2, distances, distances**2])
    means = [drawn @ terms / count for drawn in resample_counts(count)]
    mae, mse, distance, square = np.concatenate(means).T
    variance = square - distance**2
    varied = variance > _SMALLEST_SHARE * (distances**2).mean()
    found = {"mae": mae, "rmse": np.sqrt(mse), "r2": 1 - mse[varied] / variance[varied]}
    return {key: percentile_interval(drawn) for key, drawn in found.items() if len(drawn)}


def _floats(table: pd.DataFrame, *columns: str) -> _Array:
    return table[list(columns)].to_numpy(dtype=np.float64)


def _residuals(table: pd.DataFrame) -> str:
    """Draw the residual of each sample over its prediction."""

    def draw(axes: Axes) -> None:
        axes.axhline(0, color=plots.INK, linewidth=0.8, linestyle="--")
        predictions, labels = _floats(table, "prediction", "label").T
        _dots(axes, predictions, labels - predictions)
        axes.set(xlabel="prediction", ylabel="label - prediction")

    return plots.plot(draw, "residual by prediction")


def _predicted(table: pd.DataFrame) -> str:
    """Draw the prediction of each sample over its label."""

    def draw(axes: Axes) -> None:
        predictions, labels = _floats(table, "prediction", "label").T
        axes.axline((labels[0], labels[0]), slope=1, color=plots.INK, linewidth=0.8, linestyle="--")
        _dots(axes, labels, predictions)
        axes.set(xlabel="label", ylabel="prediction")

    return plots.plot(draw, "prediction by label")


def _dots(axes: Axes, x: _Array, y: _Array) -> None:
    axes.scatter(x, y, s=12, color=plots.SERIES[0], alpha=0.5, linewidths=0)
