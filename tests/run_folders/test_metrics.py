"""The metric registry: it describes metrics that tasks compute, and formats them in one way."""

import pytest

from lightning_modules.metrics.classification import metric_names
from lightning_modules.metrics.segmentation import METRIC_NAMES
from lightning_modules.multilabel import MultilabelTask
from run_folders.kinds import KINDS, log_line, shown_in


@pytest.mark.parametrize(
    ("kind", "computed"),
    [
        ("classification", metric_names(2)),
        ("multilabel", MultilabelTask.metric_names({})),
        ("segmentation", METRIC_NAMES),
    ],
)
def test_every_described_metric_is_computed(kind: str, computed: list[str]) -> None:
    described = {metric.name for metric in KINDS[kind].metrics}
    assert KINDS[kind].headline in described
    assert len(described) > 4
    assert described <= set(computed)


def test_a_place_shows_the_metrics_of_one_kind_of_task() -> None:
    names = [metric.name for metric in shown_in("dashboard", "segmentation")]
    assert names == ["miou", "pixel_acc", "loss"]
    assert {"acc", "miou"} <= {metric.name for metric in shown_in("dashboard")}


def test_the_line_of_an_epoch() -> None:
    row = {"epoch": 0, "train/loss": 0.5, "val/acc": 0.25, "val/loss": "", "train/n": 7}
    assert log_line(row, "classification") == (
        "train/loss 0.5000 val/acc 0.2500 val/loss not defined"
    )
