"""Base class of the report's parts for one kind of task."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import pandas as pd

from reports.record import RunRecord
from reports.statistics import Interval
from reports.tables import check_columns
from run_folders.kinds import KindError, kind_named, load_part, metric_of
from run_folders.run_folder import RunFolder
from run_folders.untrusted import damaged
from run_folders.value_types import type_fault

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
        test_type: The type of the test part of metrics.json; see `run_folders.value_types`.
        tables: Names of the tables that `Results.contents` publishes to dashboards.
        has_confusion: Whether the test metrics have a confusion matrix.
    """

    sample_noun: ClassVar[str] = "samples"
    template: ClassVar[str] = ""
    template_folder: ClassVar[Path | None] = None
    comparison: ClassVar[str] = ""
    test_type: ClassVar[Any] = dict[str, Any]
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

    def test_fault(self, test: dict[str, Any]) -> str:  # noqa: ARG002 - for subclasses
        """Return why values of the test part contradict each other, or an empty string."""
        return ""

    def prediction_types(self, run: RunRecord) -> dict[str, type]:  # noqa: ARG002 - for subclasses
        """Return the needed columns of the predictions with their types; see `check_columns`."""
        return {}

    def check_predictions(self, run: RunRecord) -> None:
        """Raise `DamagedFileError` if the predictions are not those of the run's test metrics."""
        types, table = self.prediction_types(run), run.predictions
        if table is None or not types:
            return
        path = RunFolder(run.folder).predictions
        check_columns(path, table, types)
        if len(table) != run.test["n"]:
            reason = f"it has {len(table)} rows, and metrics.json counts {run.test['n']} samples"
            raise damaged(path, reason)

    def sample_columns(self, predictions: pd.DataFrame) -> list[str]:
        """Return the columns of predictions that are equal if two runs had the same samples."""
        return ["index", str(predictions.columns[-1])]

    def scores(self, predictions: pd.DataFrame) -> "pd.Series[Any] | None":  # noqa: ARG002 - for subclasses
        """Return the score of each sample, higher is better; None if runs are not compared.

        Two runs are compared with the sign test on these scores, which for scores of 0 and 1 is
        McNemar's exact test.
        """
        return None


def confusion_fault(test: dict[str, Any], total: str) -> str:
    """Return why a confusion matrix does not fit the classes, or an empty string.

    Args:
        test: The test part of metrics.json.
        total: The key of the sum of the matrix.
    """
    counts, size = test["confusion_matrix"], len(test["classes"])
    if len(set(test["classes"])) < size or [*test["per_class"]] != test["classes"]:
        return "test.per_class has other names than test.classes"
    if len(counts) != size or any(len(row) != size for row in counts):
        return f"test.confusion_matrix is not {size} x {size}"
    if sum(map(sum, counts)) != test[total]:
        return f"the sum of test.confusion_matrix is not test.{total}"
    return ""


def page_of_run(run: RunRecord) -> KindPage:
    """Return the parts of a run's kind of task; see `page_of`.

    Raises:
        KindError: If the kind is unknown; the message names the run.
        DamagedFileError: If the test part of metrics.json is not that of the kind.
    """
    try:
        page = page_of(run.kind)
    except KindError as error:
        msg = f"{run.folder}: {error}"
        raise KindError(msg) from error
    if run.test:
        fault = type_fault(run.test, page.test_type, "test") or page.test_fault(run.test)
        if fault:
            raise damaged(run.folder / "metrics.json", fault)
    return page


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
