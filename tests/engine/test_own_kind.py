"""A kind of task of an own package: the regression of the example `thaw_birds`."""

import json
import os
import random
import re
import subprocess
import sys
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from sklearn.metrics import mean_absolute_error, r2_score, root_mean_squared_error

from run_folders.own_packages import VARIABLE
from run_folders.run_folder import RunFolder
from scripts import evaluate, report
from tests.conftest import ROOT, Train, write_csv
from tests.engine.test_own_packages import EXAMPLE, SMALL, environment_with

GRAMS = {"heron": 1500.0, "crow": 500.0, "robin": 18.5}
# Train one epoch, resume for a second one, evaluate, predict; train with another seed, compare.
PROGRAM = """
import sys
import train
from scripts import evaluate, predict, report

def call(main, *arguments):
    sys.argv[1:] = arguments
    code = main()
    if code:
        raise SystemExit(f"{main.__module__} {arguments} exited with {code}")

data, small = sys.argv[1], sys.argv[2:]
run = ["experiment=bird_weights", f"paths.data_dir={data}", "schedule=constant", *small]
call(train.main, *run, "hydra.run.dir=run", "trainer.max_epochs=1")
call(train.main, *run, "hydra.run.dir=run", "trainer.max_epochs=2", "ckpt_path=last")
call(evaluate.main, "run")
call(predict.main, "run", "new.csv", "-o", "out.csv")
call(train.main, *run, "hydra.run.dir=other", "trainer.max_epochs=2", "seed=2")
call(report.main, "run", "other", "-o", "comparison.html")
"""


@pytest.fixture
def notes(tmp_path: Path) -> Path:
    """A data folder with notes and weights, as `WeighedNotesDataModule` reads them."""
    drawn = random.Random(1)
    for split, count in {"train": 40, "val": 16, "test": 20}.items():
        birds = drawn.choices(list(GRAMS), k=count)
        rows = [
            (f"a {bird} by the water, {split} note {i}", f"{GRAMS[bird] * (0.9 + i / 100):.1f}")
            for i, bird in enumerate(birds)
        ]
        write_csv(tmp_path / "data" / "weighed_notes" / f"{split}.csv", rows, ("text", "grams"))
    return tmp_path / "data"


@pytest.fixture
def example(monkeypatch: pytest.MonkeyPatch) -> None:
    """The example can be imported, and configs may name it."""
    monkeypatch.syspath_prepend(str(EXAMPLE))
    monkeypatch.setenv(VARIABLE, "thaw_birds")


def metrics_of(predictions: pd.DataFrame) -> dict[str, float]:
    """The metrics as scikit-learn computes them."""
    labels, predicted = (predictions[name].astype(float) for name in ("label", "prediction"))
    return {
        "mae": mean_absolute_error(labels, predicted),
        "rmse": root_mean_squared_error(labels, predicted),
        "r2": r2_score(labels, predicted),
        "loss": np.mean((labels - predicted) ** 2),
    }


def error_of(main: Any, monkeypatch: pytest.MonkeyPatch, capsys: Any, *arguments: str) -> str:
    """The only line that a failing command prints."""
    monkeypatch.setattr(sys, "argv", ["command", *arguments])
    capsys.readouterr()
    assert main() == 1
    (line,) = capsys.readouterr().err.splitlines()
    return str(line)


def test_a_kind_of_an_own_package_from_training_to_comparison(
    notes: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    python = environment_with(EXAMPLE, tmp_path / "venv")
    (tmp_path / "new.csv").write_text("text\na heron by the water\na robin\n")
    done = subprocess.run(
        [python, "-c", PROGRAM, str(notes), *SMALL], cwd=tmp_path, capture_output=True, text=True,
        env={**os.environ, "PYTHONPATH": str(ROOT)}, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert "all metrics equal metrics.json" in done.stdout
    assert "Warning: Using a target size" not in done.stderr  # the loss broadcasts nothing

    folder = RunFolder(tmp_path / "run")
    history, metrics = folder.read_history(), folder.read_json("metrics.json")
    assert [row["epoch"] for row in history] == ["0", "1"]
    assert metrics["kind"] == "regression"
    assert metrics["best"]["monitor"] == "val/mae"
    assert metrics["best"]["score"] == min(float(row["val/mae"]) for row in history)
    test = pd.read_parquet(folder.predictions_of("test"))
    assert list(test) == ["index", "label", "prediction", "text"]
    assert len(test) == metrics["test"]["n"] == 20
    best = history[metrics["best"]["epoch"]]
    for split, found in {
        "test": metrics["test"],
        "val": {key: float(best[f"val/{key}"]) for key in ("mae", "rmse", "r2", "loss")},
    }.items():
        expected = metrics_of(pd.read_parquet(folder.predictions_of(split)))
        assert {key: found[key] for key in expected} == pytest.approx(expected, rel=1e-6)
        if split == "val":
            assert {key: metrics["val"][key] for key in expected} == found
    assert 0 < float(history[0]["train/mae"]) <= float(history[0]["train/rmse"])
    predicted = pd.read_csv(tmp_path / "out.csv")
    assert list(predicted) == ["text", "prediction"]
    assert predicted["prediction"].map(np.isfinite).all()

    page = folder.report.read_text()
    for title in ("MAE", "RMSE", "R²"):
        card = page[page.index(f">test {title}<") :]
        assert re.match(r".*?95 % CI \S+ to \S+<br>", card, re.DOTALL), title
    assert 'aria-label="residual by prediction"' in page
    assert 'aria-label="prediction by label"' in page
    assert len(re.findall(r"<tr data-search", page)) == 20
    comparison = (tmp_path / "comparison.html").read_text()
    assert "sign test on the absolute error" in comparison
    cells = [r'<td class="n">(\d+)</td>'] * 2 + [r'\s*<td class="n">20</td>']
    row = re.search("".join(cells) + r'<td class="n">([\d.e-]+)</td>', comparison)
    assert row is not None
    assert int(row[1]) + int(row[2]) <= 20
    assert 0 < float(row[3]) <= 1

    # Without the package, the kind or the package is named.
    error = error_of(report.main, monkeypatch, capsys, str(folder.path))
    assert "kind of task 'regression' is none of classification" in error
    error = error_of(evaluate.main, monkeypatch, capsys, str(folder.path))
    assert "if you trust the package thaw_birds, install it" in error


@pytest.mark.usefixtures("example")
def test_settings_that_do_not_fit_are_named(notes: Path, train: Train, tmp_path: Path) -> None:
    run = ("experiment=bird_weights", f"paths.data_dir={notes}", *SMALL)
    ended = train(*run, "model.scale=0", "model.lr=fast")
    assert "model.scale (the command line): received 0; above 0 is needed" in ended.error
    assert "model.lr (the command line): received 'fast'; float is needed" in ended.error
    ended = train(*run, "loss=cross_entropy")
    assert "model.loss: CrossEntropy fails for logits [2] and labels [2]" in ended.error
    write_csv(tmp_path / "data" / "notes.csv", [("a", "robin"), ("b", "heron")], ("text", "label"))
    classes = ("data=text", "data.folder=.", "data.classes=[robin,heron]", "data.num_classes=2")
    files = "data.files={train: notes.csv, val: notes.csv, test: notes.csv}"
    ended = train(*run, *classes, files, "data.tokenizer={vocab_size: 40}", "data.max_length=32")
    assert "TextRegressor needs one number for each sample, and the data has classes" in ended.error


@pytest.mark.usefixtures("example")
@pytest.mark.parametrize(
    ("value", "number", "fault"),
    [
        (3, 3.0, ""),
        (2.5, 2.5, ""),
        (" 12.5 ", 12.5, ""),
        ("-1e3", -1000.0, ""),
        (None, None, "column 'grams' is empty"),
        (" ", None, "column 'grams' is empty"),
        ("heavy", None, "column 'grams' holds 'heavy'; a number is needed"),
        ("12_5", None, "column 'grams' holds '12_5'; a number is needed"),
        (True, None, "column 'grams' holds True; a number is needed"),
        ([1.0], None, "column 'grams' holds [1.0]; a number is needed"),
        ("nan", None, "column 'grams' holds 'nan'; a finite number is needed"),
        (float("inf"), None, "column 'grams' holds inf; a finite number is needed"),
        ("1e39", None, "column 'grams' holds '1e39'; a finite number is needed"),
        (10**400, None, "a finite number is needed"),
    ],
)
def test_a_label_is_a_number(value: object, number: float | None, fault: str) -> None:
    from thaw_birds.weights import Numbers

    reader = Numbers("grams")
    assert reader.columns == ["grams"]
    read, reason = reader.read({"grams": value, "text": "a robin"})
    assert reason.endswith(fault)
    assert bool(reason) == bool(fault)
    assert number is None or (read == number and isinstance(read, float))


@pytest.mark.usefixtures("example")
def test_numbers_are_divided_at_random() -> None:
    from thaw_birds.weights import Numbers

    labels = [float(i) for i in range(50)]
    first, second = Numbers("grams").divide(labels, 0.2, 3)
    assert len(second) == 10
    assert sorted(first + second) == list(range(50))
    assert (first, second) == Numbers("grams").divide(labels, 0.2, 3)
    assert second != Numbers("grams").divide(labels, 0.2, 4)[1]


def in_batches(count: int, size: int, seed: int) -> Iterator[list[int]]:
    """Positions in batches, in random order."""
    order = random.Random(seed).sample(range(count), count)
    yield from (order[a:b] for a, b in pairwise([*range(0, count, size), count]))


@pytest.mark.usefixtures("example")
@pytest.mark.parametrize("mean", [0.0, 1e5])
@pytest.mark.parametrize("keep_samples", [True, False])
def test_the_metrics_equal_those_of_scikit_learn(keep_samples: bool, mean: float) -> None:
    from thaw_birds.regression_metrics import RegressionTotals

    generator = torch.Generator().manual_seed(0)
    labels = mean + 3 * torch.randn(101, generator=generator)
    predictions = labels + torch.randn(101, generator=generator)
    expected = metrics_of(pd.DataFrame({"label": labels, "prediction": predictions}))
    results = []
    for seed, size in ((1, 8), (2, 8), (3, 17)):
        totals = RegressionTotals(keep_samples=keep_samples)
        for batch in in_batches(101, size, seed):
            loss = torch.nn.functional.mse_loss(predictions[batch], labels[batch])
            totals.update(loss, predictions[batch], labels[batch], torch.tensor(batch))
        result = totals.global_result()
        assert result.count == 101
        assert result.metrics == pytest.approx(expected, rel=1e-6)
        if keep_samples:
            index, *samples = result.samples
            assert index.tolist() == list(range(101))
            assert all(map(torch.equal, samples, (predictions, labels)))
        else:
            assert result.samples is None
        results.append({key: v for key, v in result.metrics.items() if key != "loss"})
    if keep_samples:
        assert results[0] == results[1] == results[2]


@pytest.mark.usefixtures("example")
def test_the_order_of_the_batches_changes_no_digit() -> None:
    from thaw_birds.regression_metrics import RegressionTotals

    values = torch.randn(2, 60, generator=torch.Generator().manual_seed(1))
    found = []
    for order in ([0, 20, 40], [40, 0, 20]):
        totals = RegressionTotals(keep_samples=False)
        for start in order:
            predictions, labels = values[:, start : start + 20]
            totals.update(torch.tensor(0.1), predictions, labels, torch.arange(20))
        found.append(totals.result().metrics)
    assert found[0] == found[1]


@pytest.mark.usefixtures("example")
@pytest.mark.parametrize("keep_samples", [True, False])
@pytest.mark.parametrize(
    ("labels", "predictions"), [([2.0], [1.0]), ([0.1, 0.1, 0.1], [1.0, 0.0, 0.5]), ([], [])]
)
def test_undefined_metrics_are_none(
    labels: list[float], predictions: list[float], keep_samples: bool
) -> None:
    from thaw_birds.regression_metrics import RegressionTotals

    totals = RegressionTotals(keep_samples=keep_samples)
    if labels:
        given = torch.tensor(predictions), torch.tensor(labels), torch.arange(len(labels))
        totals.update(torch.tensor(1.0), *given)
    metrics = totals.result().metrics
    assert metrics["r2"] is None
    assert (metrics["mae"] is None) == (not labels)


@pytest.mark.usefixtures("example")
def test_the_intervals_contain_the_metrics_and_repeat() -> None:
    from thaw_birds.regression_page import intervals

    drawn = np.random.default_rng(0)
    labels = drawn.normal(50, 10, 300)
    predictions = labels + drawn.normal(0, 5, 300)
    found = intervals(np.column_stack([predictions, labels]))
    metrics = metrics_of(pd.DataFrame({"label": labels, "prediction": predictions}))
    assert all(low < metrics[key] < high for key, (low, high) in found.items())
    assert found == intervals(np.column_stack([predictions, labels]))
    # The interval of a mean is about 1.96 standard errors wide on each side.
    deviation = np.abs(labels - predictions).std() / 300**0.5
    low, high = found["mae"]
    assert high - low == pytest.approx(2 * 1.96 * deviation, rel=0.1)
    same = np.column_stack([predictions, np.full(300, 0.1)])
    assert set(intervals(same)) == {"mae", "rmse"}
    assert intervals(same[:1]) == {}


def test_reports_need_no_torch(tmp_path: Path) -> None:
    """The page of the kind is imported by reports, which run without torch."""
    program = (
        "import sys; from run_folders.kinds import kinds; from reports.kinds.base import page_of; "
        "page_of('regression'); assert 'regression' in kinds(); "
        "print([name for name in ('torch', 'lightning', 'hydra') if name in sys.modules])"
    )
    done = subprocess.run(
        [sys.executable, "-c", program], cwd=tmp_path, capture_output=True, text=True, check=False,
        env={**os.environ, "PYTHONPATH": f"{ROOT}:{EXAMPLE}", VARIABLE: "thaw_birds"},
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout.replace("'", '"')) == []
