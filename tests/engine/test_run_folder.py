"""Writing and reading a run folder."""

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import filelock
import pytest

from run_folders.files import make_folder, write_atomically, write_text
from run_folders.run_folder import RunFolder, RunFolderError
from run_folders.untrusted import DamagedFileError


def test_a_failed_write_leaves_the_old_file_and_nothing_else(tmp_path: Path) -> None:
    target = tmp_path / "file.txt"
    write_text(target, "old")

    def fail(path: Path) -> None:
        path.write_text("half")
        raise OSError("full")

    with pytest.raises(OSError, match="full"):
        write_atomically(target, fail)
    assert target.read_text() == "old"
    assert [path.name for path in tmp_path.iterdir()] == ["file.txt"]


def test_readers_see_the_old_file_until_the_new_one_is_complete(tmp_path: Path) -> None:
    target = tmp_path / "file.txt"
    write_text(target, "old")
    seen = []

    def write(path: Path) -> None:
        path.write_text("new")
        seen.append(target.read_text())
        assert path.parent == tmp_path  # a rename across file systems would not be atomic

    write_atomically(target, write)
    assert seen == ["old"]
    assert target.read_text() == "new"
    assert target.stat().st_mode & 0o777 == 0o644


def test_history_keeps_every_digit_and_fills_gaps(tmp_path: Path) -> None:
    folder = RunFolder(tmp_path)
    rows = [
        {"epoch": "0", "train/loss": "0.1234567890123456789"},
        {"epoch": "1", "train/loss": "1e-300", "val/acc": "0.5"},
    ]
    folder.write_history(rows)
    assert folder.read_history() == [{**rows[0], "val/acc": ""}, rows[1]]


def test_nan_is_not_written_as_json(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="not JSON compliant"):
        RunFolder(tmp_path).write_json("metrics.json", {"acc": float("nan")})
    assert not (tmp_path / "metrics.json").exists()


def test_a_damaged_file_is_named(tmp_path: Path) -> None:
    (tmp_path / "status.json").write_text('{"state": ')
    with pytest.raises(DamagedFileError, match=r"status\.json is damaged: Expecting value"):
        RunFolder(tmp_path).read_json("status.json")


@pytest.mark.parametrize(
    ("name", "key", "wrong"),
    [
        ("overrides.json", "number", "x"),
        ("sweep.json", "flags", "--config-dir=x"),
        ("plan.json", "ended", ["x"]),
        ("plan.json", "formats", {"train": 1}),
        ("plan.json", "max_steps", "x"),
        ("provenance.json", "backbone", "x"),
        ("provenance.json", "backbone.epoch", "x"),
    ],
)
def test_a_recorded_value_of_another_type_is_named(
    name: str, key: str, wrong: object, tmp_path: Path
) -> None:
    counts, git = {"total": 1, "trainable": 1}, {"commit": None, "dirty": None}
    hardware = {"cpu": "x", "threads": 1, "memory_gib": 1.0, "gpus": []}
    backbone = {"run": "x", "epoch": 0, "checkpoint_sha256": "x", "data": {}}
    sound: dict[str, dict[str, object]] = {
        "overrides.json": {"words": [], "number": 1},
        "sweep.json": {"words": [], "flags": []},
        "plan.json": {
            "rows": [], "parameters": counts, "stages": [], "batches_per_epoch": 1, "precision": "x",
            "device": "x", "padding_share": None, "max_epochs": -1, "max_steps": -1,
        },
        "provenance.json": {
            "git": git, "versions": {}, "hardware": hardware, "seed": 1, "data": {},
            "backbone": {**backbone, "backbone": backbone},
        },
    }  # fmt: skip
    folder, content = RunFolder(tmp_path), sound[name]
    folder.write_json(name, content)
    assert folder.read_json(name) == content
    inner = {**backbone, "epoch": wrong} if key == "backbone.epoch" else wrong
    folder.write_json(name, {**content, key.partition(".")[0]: inner})
    with pytest.raises(DamagedFileError, match=f"{key}.* is .*, where "):
        folder.read_json(name)


def test_status_keeps_its_start(tmp_path: Path) -> None:
    folder = RunFolder(tmp_path)
    folder.begin(None)
    started = folder.read_json("status.json")["started"]
    folder.write_status("failed", "fit", "why")
    status = folder.read_json("status.json")
    assert status == {
        "state": "failed",
        "stage": "fit",
        "error": "why",
        "started": started,
        "ended": status["ended"],
    }
    assert status["ended"] is not None
    write_text(folder.last_checkpoint, "state")
    for elsewhere in (None, str(tmp_path.parent / "other" / "last.ckpt")):
        with pytest.raises(RunFolderError, match="holds a run already"):
            folder.begin(elsewhere)
    for here in ("last", str(tmp_path / "checkpoints" / "best.ckpt")):
        folder.begin(here)
        assert folder.read_json("status.json") == status  # until the run is resumed


@pytest.mark.parametrize(
    ("state", "stage"), [("failed", "fit"), ("interrupted", "setup"), ("running", "setup")]
)
def test_a_run_without_results_does_not_block_its_folder(
    state: str, stage: str, tmp_path: Path
) -> None:
    folder = RunFolder(tmp_path)
    folder.write_status(state, stage, "why")
    folder.write_json("provenance.json", {"seed": 1})
    folder.begin(None)
    status = folder.read_json("status.json")
    assert (status["state"], status["stage"], status["error"]) == ("running", "setup", None)
    assert not (tmp_path / "provenance.json").exists()  # else the run would seem resumed


def test_a_resume_is_advised_only_where_it_works(tmp_path: Path) -> None:
    folder = RunFolder(tmp_path)
    with pytest.raises(
        RunFolderError, match="has no checkpoint to resume from; leave ckpt_path out"
    ):
        folder.begin("last")
    write_text(folder.best_checkpoint, "weights")  # of a run without training
    with pytest.raises(RunFolderError, match=r"already: set another hydra\.run\.dir"):
        folder.begin(None)
    with pytest.raises(RunFolderError, match=r"to resume from; set another hydra\.run\.dir to"):
        folder.begin("last")
    write_text(folder.config, "seed: 1")  # the run starts again with this config
    with pytest.raises(RunFolderError, match=r"already: set ckpt_path=last .*, or set another"):
        folder.begin(None)
    folder.begin("last")
    write_text(folder.last_checkpoint, "state")
    with pytest.raises(RunFolderError, match=r"already: set ckpt_path=last .*, or set another"):
        folder.begin(None)
    folder.begin("last")


def test_folders_that_are_made_at_once_differ(tmp_path: Path) -> None:
    with ThreadPoolExecutor(20) as pool:
        made = list(pool.map(make_folder, [tmp_path / "runs" / "stamp"] * 100))
    assert len(set(made)) == 100
    assert all(path.is_dir() for path in made)
    names = {"stamp", *(f"stamp_{number}" for number in range(2, 101))}
    assert {path.name for path in made} == names


def test_folders_are_made_and_discarded_at_once(tmp_path: Path) -> None:
    def once(number: int) -> None:
        RunFolder(make_folder(tmp_path / "runs" / "stamp")).discard_unless_run()

    with ThreadPoolExecutor(20) as pool:
        list(pool.map(once, range(2000)))
    assert not (tmp_path / "runs").exists()
    (tmp_path / "link").symlink_to(tmp_path / "nothing")
    with pytest.raises(FileExistsError):
        make_folder(tmp_path / "link" / "stamp")


def test_characters_that_utf8_cannot_encode_are_escaped(tmp_path: Path) -> None:
    folder = RunFolder(tmp_path)
    folder.begin(None)
    folder.write_status("failed", "fit", "byte \udcff")
    assert "byte \\udcff" in (tmp_path / "status.json").read_text(encoding="utf-8")
    assert folder.read_json("status.json")["error"] == "byte \udcff"


def test_a_run_locks_its_folder_without_a_file_in_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder, other = RunFolder(tmp_path / "run"), RunFolder(tmp_path / "run")
    assert not other.is_locked
    with folder.locked():
        assert other.is_locked
        with (
            pytest.raises(RunFolderError, match=r"run: a run is still going on in it"),
            other.locked(),
        ):
            pass
        assert not list(folder.path.iterdir())
    assert not other.is_locked

    def unsupported(*_: object, **__: object) -> bool:
        raise OSError(95, "Operation not supported")

    monkeypatch.setattr(filelock, "lock_descriptor", unsupported)
    with folder.locked():
        assert not other.is_locked
