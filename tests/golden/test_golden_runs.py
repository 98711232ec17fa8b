"""Run folders of version 0.1 are evaluated, predicted with, resumed and reported as before; see README.md here."""

import json
import runpy
import shutil
import sys
import tarfile
from collections.abc import Callable
from pathlib import Path

import pandas as pd
import pytest

from run_folders.run_folder import RunFolder
from tests.conftest import ROOT, Train
from tests.golden.test_golden import GOLDEN, close, same_machine, without_times

HOME = "/srv/thaw"  # where they were made
TEXTS = (".yaml", ".json", ".csv", ".log")
Script = Callable[..., int]


@pytest.fixture(scope="session")
def unpacked(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("golden")
    with tarfile.open(GOLDEN / "runs.tar.xz") as archive:
        archive.extractall(folder, filter="data")
    return folder


@pytest.fixture
def home(unpacked: Path, tmp_path: Path) -> Path:
    """The folders of 0.1, and their data, in a place of the test's own."""
    home = shutil.copytree(unpacked, tmp_path / "home")
    for path in home.rglob("*"):
        if path.suffix in TEXTS and path.is_file():
            path.write_text(
                path.read_text(encoding="utf-8").replace(HOME, str(home)), encoding="utf-8"
            )
    return home


@pytest.fixture
def script(monkeypatch: pytest.MonkeyPatch) -> Script:
    def call(name: str, *words: object) -> int:
        with monkeypatch.context() as patch:
            patch.setattr(sys, "argv", [name, *map(str, words)])
            with pytest.raises(SystemExit) as ended:
                runpy.run_path(str(ROOT / "scripts" / f"{name}.py"), run_name="__main__")
        return int(ended.value.code or 0)

    return call


def machine() -> dict[str, str]:
    recorded: dict[str, str] = json.loads((GOLDEN / "samples" / "sample_text.json").read_text())[
        "machine"
    ]
    return recorded


@pytest.mark.parametrize("kind", ["text", "image", "segmentation"])
def test_a_finished_run_is_tested_again(
    kind: str, home: Path, script: Script, capsys: pytest.CaptureFixture[str]
) -> None:
    run = home / "runs" / f"{kind}_whole"
    code = script("evaluate", run)
    said = capsys.readouterr().out
    found = printed_metrics(said)
    recorded = RunFolder(run).read_json("metrics.json")["test"]
    known = {name: repr(recorded[name]) for name in found}
    assert {"acc", "loss"} <= found.keys() or {"miou", "loss"} <= found.keys(), said
    assert close(found, known), said
    assert code == int(found != known), said
    if same_machine(machine()):
        assert found == known


def printed_metrics(said: str) -> dict[str, str]:
    """Name -> metric of now, from the rows of the table that `evaluate` prints."""
    rows = [
        [cell.strip() for cell in line.strip("│").split("│")]
        for line in said.splitlines()
        if line.startswith("│")
    ]
    return {name: now for name, now, _ in rows}


def nearly_the_same(found: pd.DataFrame, known: pd.DataFrame) -> bool:
    """Whether probabilities agree to 1e-4, as they do on any machine."""
    names = [name for name in known if name.startswith("probability_")]
    return bool(names) and bool(
        ((found[names].to_numpy() - known[names].to_numpy()) ** 2 < 1e-8).all()
    )


@pytest.mark.parametrize("kind", ["text", "image", "segmentation"])
def test_a_finished_run_predicts(kind: str, home: Path, script: Script) -> None:
    run, out = home / "runs" / f"{kind}_whole", home / "out.csv"
    if kind == "text":
        known = pd.read_parquet(run / "predictions" / "test.parquet")
        known[["text"]].to_csv(home / "new.csv", index=False)
        assert script("predict", run, home / "new.csv", "-o", out) == 0
        assert nearly_the_same(pd.read_csv(out), known)
    elif kind == "image":
        known = pd.read_parquet(run / "predictions" / "test.parquet")
        assert script("predict", run, home / "data" / "cifar10" / "test.parquet", "-o", out) == 0
        assert nearly_the_same(pd.read_csv(out), known)
    else:
        images = home / "data" / "scene_parse_150" / "images" / "validation"
        assert script("predict", run, images, "-o", home / "maps") == 0
        assert len(list((home / "maps").rglob("*.png"))) >= 3


def words_of(run: Path) -> list[str]:
    """The words that a stopped run says it goes on with."""
    import shlex

    line = next(
        line for line in run.joinpath("train.log").read_text().splitlines() if "to go on:" in line
    )
    words = shlex.split(line.split("train.py ", 1)[1])
    return [word for word in words if not word.startswith("hydra.run.dir=")]


@pytest.mark.parametrize("kind", ["text", "image"])
def test_a_stopped_run_goes_on_as_one_that_was_not_stopped(
    kind: str, home: Path, train: Train
) -> None:
    run, whole = home / "runs" / kind, RunFolder(home / "runs" / f"{kind}_whole")
    words = [
        word.replace("=data", f"={home}/data") if word == "paths.data_dir=data" else word
        for word in words_of(run)
    ]
    ended = train(*words, folder=run)
    assert ended.code == 0, ended.err
    folder = RunFolder(run)
    found = {
        "history": without_times(folder.read_history()),
        "test": folder.read_json("metrics.json")["test"],
    }
    expected = {
        "history": without_times(whole.read_history()),
        "test": whole.read_json("metrics.json")["test"],
    }
    if same_machine(machine()):
        assert found == expected
    else:
        assert close(found, expected)


def test_a_segmentation_goes_on_for_another_epoch(home: Path, train: Train) -> None:
    run = home / "runs" / "segmentation_whole"
    words = [
        "data=scene_parse_150", "model=sample_segmenter", "monitor=val/miou", "model.backbone.hidden_sizes=[4,4,4,4]",
        "model.backbone.num_attention_heads=[1,1,1,1]", "model.backbone.decoder_hidden_size=4", "data.size=32",
        "data.num_workers=0", "data.val_fraction=0.2", "data.batch_size=4", "data.eval_batch_size=4", f"paths.data_dir={home}/data",
    ]  # fmt: skip
    ended = train(*words, "trainer.max_epochs=4", "ckpt_path=last", folder=run)
    assert ended.code == 0, ended.err
    assert [row["epoch"] for row in RunFolder(run).read_history()] == ["0", "1", "2", "3"]


def test_every_run_is_reported(home: Path, script: Script) -> None:
    for name in ("text_whole", "image_whole", "segmentation_whole", "speedrun", "sweep/0"):
        page = home / "page.html"
        page.unlink(missing_ok=True)
        assert script("report", home / "runs" / name, "-o", page) == 0
        assert "</html>" in page.read_text(encoding="utf-8")
    assert (
        script(
            "report",
            home / "runs" / "image_whole",
            home / "runs" / "speedrun",
            "-o",
            home / "both.html",
        )
        == 0
    )


def test_a_sweep_goes_on(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import train as entry

    sweep = home / "runs" / "sweep"
    monkeypatch.chdir(home)
    monkeypatch.setattr(sys, "argv", ["train.py", "-m", f"sweep.resume={sweep}"])
    before = (sweep / "0" / "metrics.json").read_bytes()
    assert entry.main() == 0
    assert (sweep / "0" / "metrics.json").read_bytes() == before
    assert RunFolder(sweep / "1").read_json("status.json")["state"] == "finished"
    assert len(RunFolder(sweep / "1").read_history()) == 3
    assert (sweep / "sweep.html").is_file()
