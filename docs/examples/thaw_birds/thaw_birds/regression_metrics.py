"""Metrics of samples with one number each, in float64. The definitions are scikit-learn's."""

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from lightning_modules.metrics.totals import SUM_DTYPE, StageResult, StageTotals

_SUMS = 7


@dataclass(frozen=True)
class RegressionResult(StageResult):
    """The result of a stage.

    Attributes:
        samples: Index, predictions and labels, [N] each, ordered by index; None if they were not
            kept.
    """

    samples: tuple[Tensor, Tensor, Tensor] | None


class RegressionTotals(StageTotals):
    """The totals of one stage.

    Attributes:
        count: Number of samples, int64.
        sums: The sums of each batch, [batches, 7]; see `sums_of`. Empty if samples are kept.
        index, predictions, labels: Those of each sample, if samples are kept.
    """

    count: Tensor
    sums: list[Tensor] | Tensor
    index: list[Tensor] | Tensor
    predictions: list[Tensor] | Tensor
    labels: list[Tensor] | Tensor

    def __init__(self, *, keep_samples: bool) -> None:
        """Initialise all totals to zero.

        Args:
            keep_samples: Whether to keep label and prediction of every sample.
        """
        super().__init__()
        self.keep_samples = keep_samples
        self.add_state("count", torch.zeros((), dtype=torch.int64), "sum")
        self.add_list("sums", (_SUMS,), SUM_DTYPE)
        self.add_list("index", (), torch.int64)
        for name in ("predictions", "labels"):
            self.add_list(name, (), torch.float32)

    def update(self, loss: Tensor, predictions: Tensor, labels: Tensor, index: Tensor) -> None:
        """Add a batch.

        Args:
            loss: Mean loss of the batch.
            predictions: [B] float32.
            labels: [B] float32.
            index: [B] int64, rows of the samples in the data set.
        """
        self.add_loss(loss, len(labels))
        self.count += len(labels)
        states = {"sums": sums_of(predictions, labels)}
        if self.keep_samples:
            states = {"index": index, "predictions": predictions, "labels": labels}
        for name, value in states.items():
            self.add_to_list(name, value)

    def result(self) -> RegressionResult:
        """Return MAE, RMSE, R2 and the loss.

        With samples, they depend neither on the batches nor on the number of processes. Without,
        they do not depend on the order of the batches.
        """
        count, samples, sums = int(self.count), None, self.concatenated("sums")
        if self.keep_samples and count:
            sorted_samples = self.sorted_by_index("predictions", "labels")
            index, predictions, labels = (values.cpu() for values in sorted_samples)
            samples = index, predictions, labels
            sums = sums_of(*samples[1:])
        loss = self.loss_sum / count if count else None
        return RegressionResult({**regression_metrics(sums), "loss": loss}, count, samples)


def sums_of(predictions: Tensor, labels: Tensor) -> Tensor:
    """Return the sums of a batch from which the metrics are computed.

    Args:
        predictions: [B].
        labels: [B].

    Returns:
        [1, 7] float64 (float32 with MPS): number of samples, sum of absolute errors, of squared
        errors, of labels, and of the labels' squared distances from their mean; the lowest and the
        highest label.
    """
    predictions, labels = predictions.to(SUM_DTYPE), labels.to(SUM_DTYPE)
    errors = predictions - labels
    values = (
        torch.ones_like(labels).sum(),
        errors.abs().sum(),
        errors.square().sum(),
        labels.sum(),
        (labels - labels.mean()).square().sum(),
        labels.min(),
        labels.max(),
    )
    return torch.stack(values)[None]


def regression_metrics(sums: Tensor) -> dict[str, float | None]:
    """Return the metrics from the sums of all batches.

    Args:
        sums: [batches, 7]; see `sums_of`.

    Returns:
        `mae`, `rmse` and `r2`; all None without samples. R2 is None for fewer than two samples and
        for labels that are all equal.
    """
    if not len(sums):
        return dict.fromkeys(("mae", "rmse", "r2"))
    counts, absolute, squared, totals, spreads, lowest, highest = sums.T.tolist()
    count, error = sum(counts), math.fsum(squared)
    mean = math.fsum(totals) / count
    # Squared distances from the mean of all labels: within the batches, and between them. Unlike
    # the sum of squares minus the square of the sum, this loses no digits if the mean is large.
    between = [n * (total / n - mean) ** 2 for n, total in zip(counts, totals, strict=True)]
    defined = min(lowest) < max(highest)
    return {
        "mae": math.fsum(absolute) / count,
        "rmse": math.sqrt(error / count),
        "r2": 1 - error / math.fsum([*spreads, *between]) if defined else None,
    }
