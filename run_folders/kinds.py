"""The kinds of task. Standard library only.

Each row has the metrics of a kind, and the dotted names of its parts in the engine and in the
reports. The parts are imported when they are needed. An own package adds kinds: its module `kinds`
has a mapping `KINDS` of the same form.
"""

import importlib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from importlib.util import find_spec
from typing import Any

from run_folders.errors import UserError, brief
from run_folders.metrics import CLASSIFICATION, LOSS, MULTILABEL, SEGMENTATION, Metric, Place
from run_folders.own_packages import ENTRY_POINTS, VARIABLE, own_packages

_STAGES = ("train", "val")


class KindError(UserError, ValueError):
    """A kind of task that is unknown, or that two packages define."""


@dataclass(frozen=True)
class Kind:
    """What belongs to one kind of task.

    Attributes:
        metrics: The metrics of a stage, in display order.
        headline: The name of the metric that reports show first. The best checkpoint is chosen by
            `val/<headline>` unless the config states another `monitor`.
        results: Dotted name of a subclass of `engine.kinds.base.Results`: it records a stage,
            writes predictions and predicts new inputs.
        page: Dotted name of a subclass of `reports.kinds.base.KindPage`: the parts of the report,
            and the comparison of two runs.
    """

    metrics: tuple[Metric, ...]
    headline: str
    results: str
    page: str


KINDS: Mapping[str, Kind] = {
    "classification": Kind(
        CLASSIFICATION,
        headline="acc",
        results="engine.kinds.classification.ClassificationResults",
        page="reports.kinds.classification.ClassificationPage",
    ),
    "multilabel": Kind(
        MULTILABEL,
        headline="map",
        results="engine.kinds.multilabel.MultilabelResults",
        page="reports.kinds.multilabel.MultilabelPage",
    ),
    "segmentation": Kind(
        SEGMENTATION,
        headline="miou",
        results="engine.kinds.segmentation.SegmentationResults",
        page="reports.kinds.segmentation.SegmentationPage",
    ),
}


def kinds() -> dict[str, Kind]:
    """Return all kinds by name, those of own packages last.

    Raises:
        KindError: If an own package defines a kind that exists already.
    """
    found = dict(KINDS)
    for package in own_packages():
        for name, kind in _kinds_of(package).items():
            if name in found:
                msg = f"{package}.kinds defines {name!r}, which exists already; rename it"
                raise KindError(msg)
            _check_metrics(kind, found, package)
            found[name] = kind
    return found


def _check_metrics(kind: Kind, others: Mapping[str, Kind], package: str) -> None:
    """Raise `KindError` if a metric has the name of another one and another description."""
    known = {metric.name: metric for other in others.values() for metric in other.metrics}
    for metric in kind.metrics:
        if known.get(metric.name, metric) != metric:
            msg = (
                f"{package}.kinds: the metric {metric.name!r} exists with another description; "
                f"rename it, or import the description from run_folders.metrics"
            )
            raise KindError(msg)


def _kinds_of(package: str) -> Mapping[str, Kind]:
    """Return the kinds of an own package; empty if it has no module `kinds`."""
    try:
        spec = find_spec(f"{package}.kinds")
    except ModuleNotFoundError as error:
        if error.name == package:  # whatever needs the package reports that it is missing
            return {}
        msg = f"{package} cannot be imported: {brief(error)}"
        raise KindError(msg) from error
    if spec is None:
        return {}
    try:
        own: Mapping[str, Kind] = importlib.import_module(f"{package}.kinds").KINDS
    except (ImportError, AttributeError) as error:
        msg = f"{package}.kinds cannot be read: {brief(error)}; it needs a mapping KINDS"
        raise KindError(msg) from error
    if not (isinstance(own, Mapping) and all(isinstance(kind, Kind) for kind in own.values())):
        msg = f"{package}.kinds: KINDS must map names to run_folders.kinds.Kind"
        raise KindError(msg)
    return own


def kind_named(name: str) -> Kind:
    """Return a kind.

    Raises:
        KindError: If there is none of this name.
    """
    found = kinds()
    if name not in found:
        msg = (
            f"kind of task {name!r} is none of {', '.join(found)}; a kind of an own package needs "
            f"that package: install it with an entry point of {ENTRY_POINTS}, or set "
            f"{VARIABLE}=PACKAGE"
        )
        raise KindError(msg)
    return found[name]


def kind_of_metric(key: str) -> str:
    """Return the first kind of task with a metric, the classification for an unknown metric.

    A kind with this headline precedes the others.
    """
    name, found = key.rpartition("/")[2], kinds()
    headlines = [kind for kind, row in found.items() if row.headline == name]
    having = [kind for kind, row in found.items() if name in {m.name for m in row.metrics}]
    return next(iter([*headlines, *having]), next(iter(found)))


def load_part(dotted: str) -> Any:  # noqa: ANN401 - a class of any layer
    """Import a class by its dotted name.

    Raises:
        KindError: If there is no such class.
    """
    module, _, name = dotted.rpartition(".")
    try:
        return getattr(importlib.import_module(module), name)
    except (ImportError, AttributeError, ValueError) as error:
        msg = f"a kind of task names {dotted!r}, which cannot be imported: {brief(error)}"
        raise KindError(msg) from error


def metrics_by_name(first: Iterable[str | None] = ()) -> dict[str, Metric]:
    """Return the metrics of all kinds, in display order.

    Args:
        first: Names of kinds whose metrics precede the others.
    """
    found = kinds()
    ordered = [found[name] for name in first if name in found] + [*found.values()]
    return {metric.name: metric for kind in ordered for metric in kind.metrics}


def metric_of(key: str) -> Metric:
    """Return the description of a metric; one with four decimals if it is unknown.

    Args:
        key: The metric's key, with or without its stage.
    """
    name = key.rpartition("/")[2]
    built_in = (metric for kind in KINDS.values() for metric in kind.metrics)
    known = next((metric for metric in built_in if metric.name == name), None)
    return known or metrics_by_name().get(name) or Metric(key, key)


def metric_text(value: float | None, key: str = LOSS.name) -> str:
    """Format a value of a metric; None and NaN are `not defined`, with the reason."""
    return metric_of(key).text(value)


def shown_in(place: Place, kind: str | None = None) -> list[Metric]:
    """Return the metrics that a place shows, in display order.

    Args:
        place: The place.
        kind: Name of a kind of task; None returns the metrics of all kinds.
    """
    metrics = metrics_by_name().values() if kind is None else kind_named(kind).metrics
    return [metric for metric in metrics if place in metric.shown]


def log_line(values: Mapping[str, object], kind: str) -> str:
    """Return the metrics of an epoch in one line, such as `train/acc 0.9000 val/acc 0.8000`.

    Args:
        values: Key, such as `val/acc`, -> value; an empty text where it is not defined.
        kind: Name of the kind of task.
    """
    metrics = shown_in("log", kind)
    shown = [(f"{stage}/{metric.name}", metric) for stage in _STAGES for metric in metrics]
    return " ".join(
        f"{key} {metric.text(value if isinstance(value := values[key], float) else None)}"
        for key, metric in shown
        if key in values
    )
