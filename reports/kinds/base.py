"""Base class of the report's parts for one kind of task."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import pandas as pd

from reports.record import RunRecord
from reports.statistics import Interval
from run_folders.kinds import KindError, kind_named, load_part, metric_of

MAX_DRAWN_CLASSES = 40  # more do not fit into a plot


@dataclass(frozen=True)
class Card:
    """A metric at the top of the page.

    Attributes:
        key: The metric's key.
        title: Its title.
        value: Its value; None if it is undefined.
        interval: Its 95 % confidence interval, if there is one.
    """

    key: str
    title: str
    value: float | None
    interval: Interval | None = None


def card(run: RunRecord, key: str, interval: Interval | None = None) -> Card:
    """Return the card of a test metric with the title of its description."""
    return Card(key, metric_of(key).title, run.test.get(key), interval)


class KindPage:
    """The report's parts for one kind of task. This base shows no results.

    Attributes:
        sample_noun: Noun for the samples.
        template: Name of the template with the results; empty for none.
        template_folder: Folder of the template; None for Thaw's own.
        comparison: A sentence on how two runs are compared sample by sample.
        tables: Names of the tables that `Results.contents` publishes to dashboards.
        has_confusion: Whether the test metrics have a confusion matrix.
    """

    sample_noun: ClassVar[str] = "samples"
    template: ClassVar[str] = ""
    template_folder: ClassVar[Path | None] = None
    comparison: ClassVar[str] = ""
    tables: ClassVar[tuple[str, ...]] = ()
    has_confusion: ClassVar[bool] = False

    def headline(self, run: RunRecord) -> list[Card]:  # noqa: ARG002 - for subclasses
        """Return the cards at the top of the page of a tested run."""
        return []

    def variables(self, run: RunRecord) -> dict[str, Any]:  # noqa: ARG002 - for subclasses
        """Return the template's variables for a tested run.

        Names that the page itself uses, such as `run` and `headline`, keep the page's value.
        """
        return {}

    def sample_columns(self, predictions: pd.DataFrame) -> list[str]:
        """Return the columns of predictions that are equal if two runs had the same samples."""
        return ["index", str(predictions.columns[-1])]

    def scores(self, predictions: pd.DataFrame) -> "pd.Series[Any] | None":  # noqa: ARG002 - for subclasses
        """Return the score of each sample, higher is better; None if runs are not compared.

        Two runs are compared with the sign test on these scores, which for scores of 0 and 1 is
        McNemar's exact test.
        """
        return None


def page_of_run(run: RunRecord) -> KindPage:
    """Return the parts of a run's kind of task; see `page_of`.

    Raises:
        KindError: If the kind is unknown; the message names the run.
    """
    try:
        return page_of(run.kind)
    except KindError as error:
        msg = f"{run.folder}: {error}"
        raise KindError(msg) from error


def page_of(kind: str | None) -> KindPage:
    """Return the parts of a kind of task; the base class for a run without metrics.

    Raises:
        KindError: If the kind is unknown, or its class is not a `KindPage`.
    """
    if kind is None:
        return KindPage()
    dotted = kind_named(kind).page
    cls = load_part(dotted)
    if not (isinstance(cls, type) and issubclass(cls, KindPage)):
        msg = f"kind of task {kind!r}: {dotted} is not a subclass of reports.kinds.base.KindPage"
        raise KindError(msg)
    return cls()
