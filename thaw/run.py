"""A run folder, read from Python."""

import os
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from run_folders.kinds import kind_named, metric_of
from run_folders.run_folder import RunFolder, RunFolderError

if TYPE_CHECKING:
    import pandas as pd


_FRAME = '<iframe srcdoc="{page}" style="width: 100%; height: 640px; border: 0"></iframe>'


class Run:
    """A run folder: its record, and its trained network.

    The network is loaded when it is needed first, and kept.

    Example:
        `thaw.Run("runs/sample_text/2026-01-31_12-00-00").predict(["a text", "another one"])`
    """

    def __init__(self, folder: str | os.PathLike[str], device: str | None = None) -> None:
        """Open a run folder.

        Args:
            folder: The run folder.
            device: The device that predicts: `cpu`, `cuda`, ...; None for a GPU if there is one.

        Raises:
            RunFolderError: If it is not a run folder.
        """
        self._folder, self._device = RunFolder(Path(folder)), device
        if self._folder.state is None:
            msg = (
                f"{self.folder} is no run folder: it has no status.json; "
                "give a folder such as runs/bert_finetune/2026-01-31_12-00-00"
            )
            raise RunFolderError(msg)

    @property
    def folder(self) -> Path:
        """The run folder."""
        return self._folder.path

    @property
    def metrics(self) -> dict[str, Any]:
        """The content of metrics.json, such as `metrics["test"]["acc"]`; empty before the end."""
        return self._folder.read_json("metrics.json")

    @property
    def history(self) -> "pd.DataFrame":
        """One row for each epoch: losses, metrics, learning rates and seconds."""
        from reports.record import read_run

        return read_run(self.folder).history

    def predictions(self, split: Literal["val", "test"] = "test") -> "pd.DataFrame":
        """Return the recorded predictions of the best checkpoint, one row for each sample.

        Args:
            split: `val` or `test`.

        Raises:
            RunFolderError: If the run has not predicted this split.
        """
        from reports.tables import read_parquet

        path = self._folder.predictions_of(split)
        if not path.is_file():
            msg = f"{self.folder} has no predictions of {split!r}; choose val or test"
            raise RunFolderError(msg)
        return read_parquet(path)

    def __repr__(self) -> str:
        """Return the folder, the state and the metric that the kind of task shows first."""
        test, kind = self.metrics.get("test", {}), self.metrics.get("kind")
        parts = [f"Run({str(self.folder)!r})", self._folder.state or "not begun"]
        if test and kind:
            metric = metric_of(kind_named(kind).headline)
            parts.append(f"test {metric.name} {metric.text(test[metric.name])} (n = {test['n']})")
        return ", ".join(parts)


def compare(
    *runs: Run | str | os.PathLike[str], output: str | os.PathLike[str] = "comparison.html"
) -> Path:
    """Write a page that compares runs, and return its path.

    Args:
        runs: The runs, or their folders; the first is the baseline.
        output: The page.
    """
    from reports.comparison import write_comparison

    folders = [run.folder if isinstance(run, Run) else Path(run) for run in runs]
    return write_comparison(folders, Path(output))
