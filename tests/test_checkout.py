"""Tests that write into the checkout are detected."""

import subprocess
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from tests import conftest
from tests.checkout import listed


@pytest.fixture
def checkout(tmp_path: Path) -> Path:
    """A repository with tracked files, an ignored folder, an environment and the caches of tools."""
    root = tmp_path / "repository"
    for name in (
        "kept.txt",
        "a/kept.py",
        "runs/old",
        "env/pyvenv.cfg",
        "env/lib/x.py",
        "a/__pycache__/x.pyc",
        "thaw.egg-info/x",
        "build/x",
    ):
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).touch()
    (root / ".gitignore").write_text("/runs/\n__pycache__/\n")
    for arguments in (["init", "--quiet"], ["add", "kept.txt", "a/kept.py", ".gitignore"]):
        subprocess.run(["git", *arguments], cwd=root, check=True)
    name = ["-c", "user.name=me", "-c", "user.email=me@host"]
    subprocess.run(["git", *name, "commit", "--quiet", "--message=x"], cwd=root, check=True)
    return root


def test_files_that_are_new_changed_or_ignored_are_listed(checkout: Path) -> None:
    assert listed(checkout) == {"!! runs/old"}
    (checkout / "kept.txt").write_text("changed")
    (checkout / "wandb").mkdir()
    (checkout / "wandb" / "x").touch()
    (checkout / "runs" / "new").touch()
    (checkout / "env" / "more").touch()
    (checkout / "a" / "__pycache__" / "y.pyc").touch()
    assert listed(checkout) == {"!! runs/old", "!! runs/new", " M kept.txt", "?? wandb/x"}


def test_without_a_checkout_nothing_is_listed(tmp_path: Path) -> None:
    assert listed(tmp_path) is None


def test_a_session_that_leaves_files_fails_and_names_them(
    checkout: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(conftest, "ROOT", checkout)
    lines: list[str] = []
    writer = SimpleNamespace(line=lambda line, **_: lines.append(line))
    session: Any = SimpleNamespace(
        config=SimpleNamespace(stash=pytest.Stash(), get_terminal_writer=lambda: writer),
        exitstatus=0,
    )
    conftest.pytest_sessionstart(session)
    conftest.pytest_sessionfinish(session)
    assert (session.exitstatus, lines) == (0, [])
    (checkout / "mlflow.db").touch()
    conftest.pytest_sessionfinish(session)
    assert session.exitstatus == 1
    assert lines == ["", "the tests have written into the checkout:", "?? mlflow.db"]
    worker: Any = SimpleNamespace(
        config=SimpleNamespace(stash=pytest.Stash(), workerinput={}), exitstatus=0
    )
    conftest.pytest_sessionstart(worker)
    conftest.pytest_sessionfinish(worker)
    assert worker.exitstatus == 0
