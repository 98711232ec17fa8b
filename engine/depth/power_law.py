"""A power law of the accuracy in the number of labels (Hestness et al. 2017, arXiv 1712.00409)."""

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
from scipy.optimize import least_squares

Values = npt.NDArray[np.float64]
_RESAMPLES = 200
_STEEPEST = 2.0


@dataclass(frozen=True)
class PowerLaw:
    """accuracy(n) = limit - scale * n ** -exponent.

    Attributes:
        limit: Accuracy with endless labels, 0..1.
        scale: Distance to the limit with one label, at least 0.
        exponent: How fast the error falls, 0..2.
    """

    limit: float
    scale: float
    exponent: float

    def __call__(self, n: Any) -> Any:  # noqa: ANN401 - a number or an array
        """Return the accuracy with n labels."""
        return self.limit - self.scale * np.asarray(n, dtype=float) ** -self.exponent


def fit_power_law(sizes: Values, accuracies: Values) -> PowerLaw:
    """Fit a power law by least squares.

    Args:
        sizes: [S] numbers of labels, at least three different ones.
        accuracies: [S] mean accuracies, 0..1.
    """
    first = sizes[0]

    def residuals(values: Values) -> Values:
        limit, lost, exponent = values
        found: Values = limit - lost * (sizes / first) ** -exponent - accuracies
        return found

    # `lost` is the scale at the first size, so that all unknowns are of order 1.
    start = [min(1.0, accuracies.max() + 0.02), min(0.99, np.ptp(accuracies) + 0.02), 0.5]
    limit, lost, exponent = least_squares(
        residuals, start, bounds=([0, 0, 0.01], [1, 1, _STEEPEST])
    ).x
    return PowerLaw(float(limit), float(lost * first**exponent), float(exponent))


def extrapolate(
    sizes: Values, accuracies: Values, samples: int, to: int, seed: int
) -> tuple[float, float, float]:
    """Return the accuracy that a power law predicts for more labels, and its 95 % interval.

    The interval is a percentile bootstrap over the draws and over the validation samples. It does
    not cover that the law itself may be wrong.

    Args:
        sizes: [S] numbers of labels.
        accuracies: [S, D] accuracy of each draw; the sizes of a draw are nested.
        samples: Number of validation samples.
        to: Number of labels to predict for.
        seed: Seed of the bootstrap.
    """
    random = np.random.default_rng(seed)
    draws, means = accuracies.shape[1], accuracies.mean(axis=1)
    found = []
    for _ in range(_RESAMPLES):
        again = accuracies[:, random.integers(0, draws, draws)].mean(axis=1)
        # All sizes are measured on the same validation samples, so they err together.
        error = random.binomial(samples, means[-1]) / samples - means[-1]
        law = fit_power_law(sizes, np.clip(again + error, 0, 1))
        found.append(float(law(to)))
    low, high = np.percentile(found, [2.5, 97.5])
    return float(fit_power_law(sizes, means)(to)), float(low), float(high)
