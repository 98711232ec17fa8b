"""The kinds of task: those of own packages, and errors that name the cause."""

import re
import sys
from pathlib import Path

import pytest

from reports.kinds.base import page_of
from run_folders.kinds import (
    KINDS,
    KindError,
    kind_named,
    kind_of_metric,
    kinds,
    load_part,
    metric_of,
    metrics_by_name,
)
from run_folders.old_names import kind_of_metrics
from run_folders.own_packages import VARIABLE
from tests.conftest import ROOT

KIND = (
    "Kind((Metric('mae', 'MAE', 'min', format='.2f'), LOSS), 'mae', 'own.results.R', 'own.page.P')"
)
IMPORTS = "from run_folders.kinds import Kind\nfrom run_folders.metrics import LOSS, Metric\n"


@pytest.fixture
def own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The module `kinds` of an own package, still to be written."""
    for name in ("own", "own.kinds"):
        monkeypatch.delitem(sys.modules, name, raising=False)
    (tmp_path / "own").mkdir()
    (tmp_path / "own" / "__init__.py").touch()
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.setenv(VARIABLE, "own")
    return tmp_path / "own" / "kinds.py"


def test_an_own_package_adds_a_kind(own: Path) -> None:
    assert kinds() == dict(KINDS)  # the package has no module `kinds`
    own.write_text(f"{IMPORTS}KINDS = {{'regression': {KIND}}}\n")
    assert kind_named("regression").headline == "mae"
    assert (metric_of("val/mae").text(1.234), metric_of("val/mae").better) == ("1.23", "min")
    assert kind_of_metric("val/mae") == "regression"
    assert next(iter(metrics_by_name(["regression"]))) == "mae"
    assert next(iter(metrics_by_name())) == "acc"


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (f"{IMPORTS}KINDS = {{'segmentation': {KIND}}}", "own.kinds defines 'segmentation', which exists already"),
        (f"{IMPORTS}KINDS = {{'own': {KIND.replace('mae', 'acc')}}}", "the metric 'acc' exists with another description"),
        ("KIND = 1", "own.kinds cannot be read: .* it needs a mapping KINDS"),
        ("KINDS = {'own': 1}", "KINDS must map names to run_folders.kinds.Kind"),
        ("import no_such_module", "own.kinds cannot be read: No module named 'no_such_module'"),
    ],
)  # fmt: skip
def test_a_faulty_kind_is_named(own: Path, content: str, message: str) -> None:
    own.write_text(content)
    with pytest.raises(KindError, match=message):
        kinds()


def test_a_package_that_lacks_a_dependency_is_named(own: Path) -> None:
    own.with_name("__init__.py").write_text("import no_such_module\n")
    with pytest.raises(KindError, match="own cannot be imported: No module named 'no_such_module'"):
        kinds()


def test_a_kind_or_a_part_that_does_not_exist(own: Path) -> None:
    with pytest.raises(KindError, match="kind of task 'regression' is none of classification, mul"):
        kind_named("regression")
    own.write_text(f"{IMPORTS}KINDS = {{'regression': {KIND}}}\n")
    with pytest.raises(KindError, match=r"names 'own.page.P', which cannot be imported"):
        page_of("regression")
    own.write_text(f"{IMPORTS}KINDS = {{'regression': {KIND}}}\n")
    with pytest.raises(KindError, match=r"'own\.kinds\.Missing'"):
        load_part("own.kinds.Missing")


@pytest.mark.parametrize(
    ("metrics", "kind"),
    [
        ({"test": {"miou": 0.5}}, "segmentation"),
        ({"val": {"miou": None}, "test": {}}, "segmentation"),
        ({"val": {"acc": 0.5}}, "classification"),
        ({"test": None, "val": {"acc": 0.5}}, "classification"),
        ({}, None),
    ],
)
def test_the_kind_of_a_folder_of_version_0_1(metrics: dict, kind: str | None) -> None:
    assert kind_of_metrics(metrics) == kind


def test_no_other_code_asks_for_the_kind() -> None:
    """Names of kinds occur in the files of the kinds only."""
    named = re.compile(rf"[\"']({'|'.join(KINDS)})[\"']")
    allowed = {
        "run_folders/kinds.py",
        "run_folders/old_names.py",
        "keras_bert/training/fit_record.py",  # it has one kind
        # These name options of the config group `data`, or words in the names of folders.
        *(f"datamodules/describing/{name}.py" for name in ("kinds", "masks")),
        "datamodules/inferring/folders/mask_names.py",
        "engine/sweeps/names.py",
        *(f"lightning_modules/{name}.py" for name in ("classification", "multilabel", "segmenter")),
    }
    packages = ("run_folders", "datamodules", "lightning_modules", "engine", "reports", "scripts")
    files = [
        path for package in (*packages, "keras_bert") for path in (ROOT / package).rglob("*.py")
    ]
    found = {p.relative_to(ROOT).as_posix() for p in files if named.search(p.read_text())}
    assert "run_folders/kinds.py" in found
    assert found <= allowed
