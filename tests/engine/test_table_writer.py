"""The table of predictions after an early end: what is named exists and can be read."""

import resource
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from engine.prediction.table_writer import TableWriter
from engine.processes.signals import InterruptedRunError
from run_folders.run_folder import RunFolderError

READERS: dict[str, Callable[[Path], pd.DataFrame]] = {
    ".csv": pd.read_csv,
    ".tsv": lambda path: pd.read_csv(path, sep="\t"),
    ".jsonl": lambda path: pd.read_json(path, lines=True),
    ".parquet": pd.read_parquet,
}
ROWS: list[dict[str, Any]] = [{"text": "a\nb", "n": 1}, {"text": '"', "n": 2}]


@contextmanager
def full_disk(size: int) -> Iterator[None]:
    """Let no file grow beyond a size; the system reports it as it reports a full disk."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


def write(target: Path, *chunks: list[dict[str, Any]], error: BaseException | None = None) -> None:
    """Write chunks of rows, then raise the error."""
    with TableWriter(target) as writer:
        for chunk in chunks:
            writer.write(chunk)
        if error is not None:
            raise error


@pytest.mark.parametrize("suffix", READERS)
@pytest.mark.parametrize("error", [InterruptedRunError(15), KeyboardInterrupt(), ValueError("x")])
def test_rows_written_before_an_early_end_can_be_read(
    suffix: str, error: BaseException, tmp_path: Path
) -> None:
    target = tmp_path / f"out{suffix}"
    with pytest.raises(type(error)) as caught:
        write(target, ROWS, error=error)
    partial = tmp_path / f"out.partial{suffix}"
    assert caught.value.__notes__[-1] == f"the rows predicted so far are in {partial}"
    assert READERS[suffix](partial).to_dict("records") == ROWS
    assert not target.exists()


def test_without_a_written_row_no_file_is_named(tmp_path: Path) -> None:
    """The first rows fail; a file of an earlier end is not taken for theirs."""
    stale = tmp_path / "out.partial.parquet"
    stale.write_text("old")
    with pytest.raises(RunFolderError) as caught:
        write(tmp_path / "out.parquet", [{"n": 1}, {"n": "b"}])
    assert caught.value.__notes__ == ["no predicted row was kept"]
    assert stale.read_text() == "old"


@pytest.mark.parametrize("suffix", READERS)
def test_a_full_disk_is_one_line_and_keeps_only_whole_rows(suffix: str, tmp_path: Path) -> None:
    target = tmp_path / f"out{suffix}"
    rows = [{"text": f"a{i}" * 50, "n": i} for i in range(100)]
    with full_disk(20_000), pytest.raises(RunFolderError) as caught:
        write(target, *[rows] * 10)
    assert str(caught.value).startswith(f"{target} cannot be written: ")
    assert str(caught.value).endswith("; free space, or change -o")
    partial = tmp_path / f"out.partial{suffix}"
    if suffix == ".parquet":  # it cannot be read without its end
        assert caught.value.__notes__[-1] == "no predicted row was kept"
        assert not partial.exists()
    else:
        assert caught.value.__notes__[-1] == f"the rows predicted so far are in {partial}"
        assert READERS[suffix](partial).to_dict("records") == rows
    assert not target.exists()


def test_a_disk_that_is_full_at_the_very_end_is_reported(tmp_path: Path) -> None:
    with full_disk(300), pytest.raises(RunFolderError, match="cannot be written") as caught:
        write(tmp_path / "out.parquet", ROWS)
    assert caught.value.__notes__ == ["no predicted row was kept"]
    assert list(tmp_path.iterdir()) == []
