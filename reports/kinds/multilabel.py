"""The report's parts for samples with several labels each."""

from typing import Any, ClassVar, TypedDict

import pandas as pd

from reports import plots
from reports.kinds.base import MAX_DRAWN_CLASSES, Card, KindPage, card
from reports.mistakes import MAX_MISTAKES
from reports.pictures import source
from reports.record import RunRecord
from reports.statistics import multilabel_f1_intervals, wilson_interval


class LabelMetrics(TypedDict):
    """The test metrics of a label."""

    threshold: float
    average_precision: float | None
    precision: float | None
    recall: float | None
    f1: float | None
    hits: int
    predicted: int
    positives: int


class MultilabelTest(TypedDict):
    """The test part of metrics.json."""

    n: int
    map: float | None
    f1_micro: float | None
    f1_macro: float | None
    exact_match: float | None
    hamming_loss: float | None
    loss: float | None
    classes: list[str]
    per_class: dict[str, LabelMetrics]


class MultilabelPage(KindPage):
    """Per-label metrics with thresholds, and mistakes by label."""

    template: ClassVar[str] = "kind_multilabel.html.j2"
    comparison: ClassVar[str] = (
        "Multi-label runs are compared with the sign test on the number of correct labels of each "
        "sample."
    )
    test_type: ClassVar[Any] = MultilabelTest
    tables: ClassVar[tuple[str, ...]] = ("test/classes", "test/mistakes")

    def headline(self, run: RunRecord) -> list[Card]:
        """Return mean average precision, micro and macro F1, and exact match."""
        test, table = run.test, run.predictions
        if not test.get("n"):
            return []
        micro = macro = None
        if table is not None:
            micro, macro = multilabel_f1_intervals(*label_tables(run, table))
        exact = wilson_interval(round(test["exact_match"] * test["n"]), test["n"])
        return [
            card(run, "map"),
            card(run, "f1_micro", micro),
            card(run, "f1_macro", macro),
            card(run, "exact_match", exact),
        ]

    def variables(self, run: RunRecord) -> dict[str, Any]:
        """Return the variables of the template."""
        rows = _label_rows(run)
        known = {row["name"]: row["average_precision"] for row in rows if row["positives"]}
        return {
            "rows": rows,
            "without_positives": [row["name"] for row in rows if not row["positives"]],
            "precision_bars": known
            and len(known) <= MAX_DRAWN_CLASSES
            and plots.bars(known, "average precision", "average precision by label"),
            "mistakes": mistakes_by_label(run),
            "max_mistakes": MAX_MISTAKES,
        }

    def test_fault(self, test: dict[str, Any]) -> str:
        """Return why counts contradict each other; see the base class."""
        if len(set(test["classes"])) < len(test["classes"]) or (
            [*test["per_class"]] != test["classes"]
        ):
            return "test.per_class has other names than test.classes"
        if test["exact_match"] is not None and not 0 <= test["exact_match"] <= 1:
            return f"test.exact_match is {test['exact_match']}, where 0 to 1 is needed"
        for name, row in test["per_class"].items():
            smaller, larger = sorted((row["predicted"], row["positives"]))
            if row["hits"] > smaller or larger > test["n"]:
                return f"the counts in test.per_class.{name} contradict each other"
        return ""

    def prediction_types(self, run: RunRecord) -> dict[str, type]:
        """Return the index, and three columns for each label; see the base class."""
        types = {"label": int, "prediction": int, "probability": float}
        names = run.test["classes"]
        return {
            "index": int,
            **{f"{what}_{name}": kind for what, kind in types.items() for name in names},
        }

    def sample_columns(self, predictions: pd.DataFrame) -> list[str]:
        """Return index, reference and labels."""
        names = _label_names(predictions)
        return [*super().sample_columns(predictions), *(f"label_{name}" for name in names)]

    def scores(self, predictions: pd.DataFrame) -> "pd.Series[Any]":
        """Return the number of correct labels of each sample."""
        correct = [
            predictions[f"label_{name}"] == predictions[f"prediction_{name}"]
            for name in _label_names(predictions)
        ]
        return sum(correct, start=pd.Series(0, index=predictions.index))


def _label_names(predictions: pd.DataFrame) -> list[str]:
    columns = map(str, predictions.columns)
    return [name.removeprefix("label_") for name in columns if name.startswith("label_")]


def label_tables(run: RunRecord, table: pd.DataFrame) -> tuple[Any, Any]:
    """Return which labels the samples have, and which are predicted: two arrays [N, K] bool."""
    names = run.test["classes"]
    return tuple(
        table[[f"{what}_{name}" for name in names]].to_numpy() > 0
        for what in ("label", "prediction")
    )  # type: ignore[return-value]


def _label_rows(run: RunRecord) -> list[dict[str, Any]]:
    """Return the rows of the table of labels; precision and recall with Wilson intervals."""
    rows = []
    for name, metrics in run.test["per_class"].items():
        hits, predicted, positives = (metrics[key] for key in ("hits", "predicted", "positives"))
        rows.append(
            {
                "name": name,
                **metrics,
                "precision_interval": wilson_interval(hits, predicted) if predicted else None,
                "recall_interval": wilson_interval(hits, positives) if positives else None,
            }
        )
    return rows


def wrong_labels(run: RunRecord) -> pd.DataFrame:
    """Return each wrong label of each test sample: the most confident of each label first.

    Returns:
        The columns index, label, mistake (`missed` or `wrongly predicted`), probability, distance
        from the threshold, and reference.
    """
    table = run.predictions
    parts = []
    for name, metrics in run.test["per_class"].items() if table is not None else ():
        assert table is not None  # noqa: S101 - tells the type checker
        wrong = table[table[f"label_{name}"] != table[f"prediction_{name}"]]
        probability = wrong[f"probability_{name}"].astype(float)
        missed = wrong[f"label_{name}"] > 0
        part = pd.DataFrame(
            {
                "index": wrong["index"],
                "label": name,
                "mistake": missed.map({True: "missed", False: "wrongly predicted"}),
                "probability": probability,
                "distance": (probability - metrics["threshold"]).abs(),
                "reference": wrong[table.columns[-1]].astype(str),
            }
        )
        parts.append(part.sort_values(["distance", "index"], ascending=[False, True]))
    columns = ["index", "label", "mistake", "probability", "distance", "reference"]
    return pd.concat(parts, ignore_index=True) if parts else pd.DataFrame(columns=columns)


def mistakes_by_label(run: RunRecord) -> list[dict[str, Any]]:
    """Return the wrong labels, grouped by label and kind of mistake.

    Returns:
        Dicts with label, mistake, count and rows (index, probability, reference, and the picture's
        source or None), the most confident first; about `MAX_MISTAKES` rows in total. For images,
        only those whose pictures are stored.
    """
    wrong = wrong_labels(run)
    groups = list(wrong.groupby(["label", "mistake"], sort=False))
    most = max(1, MAX_MISTAKES // max(1, len(groups)))
    found = []
    for (label, mistake), group in groups:
        shown = group[group["index"].isin(list(run.pictures))] if run.pictures else group
        rows = [
            {
                "index": int(row["index"]),
                "probability": float(row["probability"]),
                "reference": row["reference"],
                "source": source(run.pictures[row["index"]]) if run.pictures else None,
            }
            for row in shown.head(most).to_dict("records")
        ]
        found.append({"label": label, "mistake": mistake, "count": len(group), "rows": rows})
    order = {name: k for k, name in enumerate(run.test["classes"])}
    return sorted(found, key=lambda entry: (order[entry["label"]], entry["mistake"]))
