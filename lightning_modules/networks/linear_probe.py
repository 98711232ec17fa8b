"""Linear probes: logistic regression on frozen features (Alain & Bengio 2016, arXiv 1610.01644).

Shapes: `N` training samples, `M` validation samples, `C` channels, `K` classes.
"""

import warnings
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from sklearn.exceptions import ConvergenceWarning
from sklearn.linear_model import LogisticRegression
from sklearn.preprocessing import StandardScaler

# Penalties per sample, the strongest first.
PENALTIES = (1.0, 0.1, 1e-2, 1e-3, 1e-4, 1e-5)
_ITERATIONS = 1000
_LEAST = 1e-12  # probability of a class in the cross-entropy

Features = npt.NDArray[np.float32]
Labels = npt.NDArray[np.int64]


@dataclass(frozen=True)
class FittedProbe:
    """A probe and what it predicts for validation.

    Attributes:
        penalty: The penalty with the lowest cross-entropy on validation.
        probabilities: [M, K], 0..1.
        loss: Mean cross-entropy on validation.
    """

    penalty: float
    probabilities: npt.NDArray[np.float64]
    loss: float


def fit_probe(
    train: tuple[Features, Labels],
    val: tuple[Features, Labels],
    num_classes: int,
    penalties: Sequence[float] = PENALTIES,
) -> FittedProbe:
    """Fit probes from the strongest penalty on, and return the best one on validation.

    A probe minimises the mean cross-entropy plus half the penalty times the sum of squared weights.
    It starts from the probe before. The search ends when the loss on validation rises.

    Args:
        train: Features [N, C] and labels [N]. The features are standardised.
        val: Features [M, C] and labels [M], which choose the penalty.
        num_classes: K. Classes without a training sample have the probability 0.
        penalties: Penalties per sample, the strongest first, at least one.

    Returns:
        The probe. If all training samples have the same class, it predicts that one.
    """
    classes = np.unique(train[1])
    if len(classes) == 1:
        probabilities = np.zeros((len(val[1]), num_classes))
        probabilities[:, classes] = 1
        return FittedProbe(penalties[0], probabilities, _cross_entropy(probabilities, val[1]))
    scaler = StandardScaler().fit(train[0])
    values, labels = scaler.transform(train[0]), train[1]
    model = LogisticRegression(max_iter=_ITERATIONS, warm_start=True)
    best: FittedProbe | None = None
    for penalty in penalties:
        with warnings.catch_warnings():
            # A weak penalty may not converge; validation judges what was found.
            warnings.simplefilter("ignore", ConvergenceWarning)
            model.set_params(C=1 / (len(labels) * penalty)).fit(values, labels)
        probabilities = np.zeros((len(val[1]), num_classes))
        probabilities[:, model.classes_] = model.predict_proba(scaler.transform(val[0]))
        loss = _cross_entropy(probabilities, val[1])
        if best is not None and loss >= best.loss:
            break
        best = FittedProbe(penalty, probabilities, loss)
    assert best is not None  # noqa: S101 - there is at least one penalty
    return best


def _cross_entropy(probabilities: npt.NDArray[np.float64], labels: Labels) -> float:
    """Return the mean cross-entropy of probabilities [M, K]."""
    own = probabilities[np.arange(len(labels)), labels]
    return float(-np.log(np.maximum(own, _LEAST)).mean())
