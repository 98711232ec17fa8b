"""`scripts/cache.py` lists the stored features and clears them."""

import os
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from filelock import FileLock

from datamodules.batching.stored_features import Layout, StoredFeatures
from engine.feature_cache.store import FeatureStore
from scripts import cache

Call = Callable[..., tuple[int, str, str]]


@pytest.fixture
def call(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Call:
    def run(*arguments: str) -> tuple[int, str, str]:
        monkeypatch.setattr(sys, "argv", ["cache.py", *arguments])
        code = cache.main()
        return (code, *capsys.readouterr())

    return run


def ones(out: StoredFeatures) -> None:
    out.values.fill_(1)


@pytest.fixture
def filled(tmp_path: Path) -> Path:
    """A cache with two complete entries, a damaged and an unfinished one, and files of others."""
    store = FeatureStore(tmp_path, 10**9)
    store.get("images", Layout(torch.bfloat16, (4, 8), 500, views=2), ones)
    tokens = torch.tensor([3, 1]).numpy()
    store.get("texts", Layout(torch.float32, (6,), 2, lengths=tokens), ones)
    os.utime(tmp_path / "texts" / "entry.json", (1e9, 1e9))
    store.get("damaged", Layout(torch.float32, (6,), 2), ones)
    (tmp_path / "damaged" / "entry.json").write_text("{}")
    (tmp_path / "left.partial").mkdir()
    (tmp_path / "left.partial" / "values.bin").write_bytes(b"x" * 2_000_000)
    (tmp_path / "notes.partial").touch()
    (tmp_path / "mine").mkdir()
    return tmp_path


def test_list_names_each_entry_and_the_total(filled: Path, call: Call) -> None:
    code, out, err = call("list", "--dir", str(filled))
    assert (code, err) == (0, "")
    damaged, images, left, texts, total = (line.split(maxsplit=3) for line in out.splitlines())
    assert (damaged[0], left[:3]) == ("damaged", ["left.partial", "2.00", "MB"])
    assert (
        damaged[3]
        == left[3]
        == "unfinished, damaged or of an older version; a run that needs it computes it again"
    )
    assert images[:3] == ["images", "0.06", "MB"]
    assert images[3].startswith("500 samples in 2 views, torch.bfloat16 [4, 8], last used 20")
    assert texts[3].startswith("2 samples, torch.float32 [6] per token, last used 2001-09-")
    assert total == ["4", "entries,", "2.06", f"MB, in {filled}"]


def test_clear_keeps_entries_that_a_run_computes_and_files_of_others(
    filled: Path, call: Call
) -> None:
    with FileLock(filled / "left.lock"):
        code, out, _ = call("clear", "--dir", str(filled))
    assert code == 0
    assert out.splitlines() == [
        "left.partial was not removed: a run is computing it",
        f"0.06 MB freed in {filled}",
    ]
    assert {path.name for path in filled.iterdir()} == {
        "left.lock",
        "left.partial",
        "notes.partial",
        "mine",
    }
    assert call("clear", "--dir", str(filled))[1] == f"2.00 MB freed in {filled}\n"
    assert {path.name for path in filled.iterdir()} == {"notes.partial", "mine"}


def test_entries_that_cannot_be_removed_are_named(
    filled: Path, call: Call, monkeypatch: pytest.MonkeyPatch
) -> None:
    def denied(entry: Path) -> None:
        raise PermissionError(13, "Permission denied", str(entry))

    monkeypatch.setattr("engine.feature_cache.store.shutil.rmtree", denied)
    out = call("clear", "--dir", str(filled))[1]
    assert f"images was not removed: [Errno 13] Permission denied: '{filled / 'images'}'" in out
    assert "0.00 MB freed" in out
    assert not list(filled.glob("*.lock"))


def test_the_default_folder_is_that_of_the_runs_and_must_exist(
    tmp_path: Path, call: Call, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("THAW_CACHE", str(tmp_path))
    assert call("list") == (0, f"0 entries, 0.00 MB, in {tmp_path}\n", "")
    monkeypatch.setenv("THAW_CACHE", str(tmp_path / "none"))
    code, out, err = call("list")
    assert (code, out) == (1, "")
    assert err.startswith(
        f"error: {tmp_path / 'none'} is not a folder; set --dir to the cache.dir of your runs"
    )
