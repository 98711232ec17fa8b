"""Run folders of version 0.1 can be evaluated, used to predict, resumed and reported.

See README.md.
"""

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

HOME = "/srv/thaw"  # the folder in which they were recorded
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
    """A copy of the run folders of 0.1 and their data, with its own paths in the files."""
    home = shutil.copytree(unpacked, tmp_path / "home")
    for path in home.rglob("*"):
        if path.suffix in TEXTS and path.is_file():
            path.write_text(
                path.read_text(encoding="utf-8").replace(HOME, str(home)), encoding="utf-8"
            )
    return home


@pytest.fixture
def script(monkeypatch: pytest.MonkeyPatch) -> Script:
    def call(name: str, *arguments: object) -> int:
        with monkeypatch.context() as patch:
            patch.setattr(sys, "argv", [name, *map(str, arguments)])
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
def test_a_finished_run_can_be_evaluated(
    kind: str, home: Path, script: Script, capsys: pytest.CaptureFixture[str]
) -> None:
    run = home / "runs" / f"{kind}_whole"
    code = script("evaluate", run)
    output = capsys.readouterr().out
    found = printed_metrics(output)
    recorded = RunFolder(run).read_json("metrics.json")["test"]
    known = {name: repr(recorded[name]) for name in found}
    assert {"acc", "loss"} <= found.keys() or {"miou", "loss"} <= found.keys(), output
    assert close(found, known), output
    assert code == int(found != known), output
    if same_machine(machine()):
        assert found == known


def printed_metrics(output: str) -> dict[str, str]:
    """Return name -> new metric, from the table that `evaluate` prints."""
    rows = [
        [cell.strip() for cell in line.strip("│").split("│")]
        for line in output.splitlines()
        if line.startswith("│")
    ]
    return {name: new for name, new, _ in rows}


def probabilities_agree(found: pd.DataFrame, known: pd.DataFrame) -> bool:
    """Return whether probabilities agree to 1e-4, as they do on any machine."""
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
        assert probabilities_agree(pd.read_csv(out), known)
    elif kind == "image":
        known = pd.read_parquet(run / "predictions" / "test.parquet")
        assert script("predict", run, home / "data" / "cifar10" / "test.parquet", "-o", out) == 0
        assert probabilities_agree(pd.read_csv(out), known)
    else:
        images = home / "data" / "scene_parse_150" / "images" / "validation"
        assert script("predict", run, images, "-o", home / "maps") == 0
        assert len(list((home / "maps").rglob("*.png"))) >= 3


def resume_overrides(run: Path) -> list[str]:
    """Return the overrides that resume an interrupted run, from its log."""
    import shlex

    line = next(
        line for line in run.joinpath("train.log").read_text().splitlines() if "to go on:" in line
    )
    overrides = shlex.split(line.split("train.py ", 1)[1])
    return [override for override in overrides if not override.startswith("hydra.run.dir=")]


@pytest.mark.parametrize("kind", ["text", "image"])
def test_a_resumed_run_equals_an_uninterrupted_one(kind: str, home: Path, train: Train) -> None:
    run, whole = home / "runs" / kind, RunFolder(home / "runs" / f"{kind}_whole")
    overrides = [
        override.replace("=data", f"={home}/data")
        if override == "paths.data_dir=data"
        else override
        for override in resume_overrides(run)
    ]
    ended = train(*overrides, folder=run)
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


def test_a_segmentation_run_can_be_resumed_for_another_epoch(home: Path, train: Train) -> None:
    run = home / "runs" / "segmentation_whole"
    overrides = [
        "data=scene_parse_150", "model=sample_segmenter", "monitor=val/miou", "model.backbone.hidden_sizes=[4,4,4,4]",
        "model.backbone.num_attention_heads=[1,1,1,1]", "model.backbone.decoder_hidden_size=4", "data.size=32",
        "data.num_workers=0", "data.val_fraction=0.2", "data.batch_size=4", "data.eval_batch_size=4", f"paths.data_dir={home}/data",
    ]  # fmt: skip
    ended = train(*overrides, "trainer.max_epochs=4", "ckpt_path=last", folder=run)
    assert ended.code == 0, ended.err
    assert [row["epoch"] for row in RunFolder(run).read_history()] == ["0", "1", "2", "3"]


def test_every_run_has_a_report(home: Path, script: Script) -> None:
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


def test_a_sweep_can_be_resumed(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
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
