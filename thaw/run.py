"""A run folder, read from Python."""

import os
from functools import cached_property
from html import escape
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, cast

from run_folders.kinds import kind_named, metric_of
from run_folders.run_folder import RunFolder, RunFolderError

if TYPE_CHECKING:
    import pandas as pd

    from datamodules.base import TransferDataModule
    from engine.trained_run import TrainedRun
    from lightning_modules.base import Task
    from lightning_modules.networks.tokens.merging import MergedTokens

# The sandbox keeps a page that somebody else wrote from the notebook around it.
_FRAME = (
    '<iframe sandbox="allow-scripts" srcdoc="{page}" '
    'style="width: 100%; height: 640px; border: 0"></iframe>'
)


class Run:
    """A run folder: its record, and its trained network.

    The network is loaded when it is needed first, and kept.

    Example:
        `thaw.Run("runs/sample_text/2026-01-31_12-00-00").predict(["a text", "another one"])`
    """

    def __init__(
        self,
        folder: str | os.PathLike[str],
        device: str | None = None,
        merge_tokens: int | list[int] | dict[str, Any] | None = None,
    ) -> None:
        """Open a run folder.

        Args:
            folder: The run folder.
            device: The device that predicts: `cpu`, `cuda`, ...; None for a GPU if there is one.
            merge_tokens: How blocks of a vision transformer merge tokens in `predict`, `evaluate`
                and `task`: a number of tokens, one number for each block, or the arguments of
                `lightning_modules.networks.tokens.merging.merge_tokens`. None takes that of the
                training.

        Raises:
            RunFolderError: If it is not a run folder.
        """
        self._folder, self._device = RunFolder(Path(folder)), device
        self._merge_tokens = cast("MergedTokens | None", merge_tokens)
        if self._folder.state is None:
            advice = "; give a folder such as runs/bert_finetune/2026-01-31_12-00-00"
            error = self._folder.no_run("status.json", advice)
            raise error

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

    @cached_property
    def _trained(self) -> "TrainedRun":
        from engine.predict import open_run

        return open_run(self.folder, self._device, self._merge_tokens)

    def task(self) -> "Task":
        """Return the LightningModule with its best weights, on the device.

        It is in eval mode. Call `task.train()` before you train it further: Lightning's Trainer
        keeps the mode.
        """
        return self._trained.task

    def datamodule(self) -> "TransferDataModule[Any]":
        """Return a new datamodule with the run's settings and state, such as its tokenizer.

        `setup`, which a Trainer calls, reads the data from the place in config.yaml.
        """
        from engine.trained_run import restored_data

        return restored_data(self._trained.cfg, self._trained.data_state)

    def predict(self, inputs: Any) -> Any:  # noqa: ANN401 - texts, images, tables, paths
        """Predict new samples, as `thaw predict` does.

        Args:
            inputs: One sample or several. A run of texts takes texts, or the `Path` of a file of
                texts. A run of images takes images of Pillow, arrays [H, W, 3] uint8, and paths of
                images, folders, lists and tables. Both take a DataFrame with the column that the
                run was trained on; a run of texts also takes a Series.

        Returns:
            A DataFrame with a row for each sample: the sample, or the columns of the table, then
            the columns of the prediction, such as `prediction` and `probability_<class>`. For
            segmentation a list of masks, [H, W] each, with the number of the class of each pixel.

        Raises:
            UserError: If a sample cannot be read, or the run has no best checkpoint.
        """
        from engine.kinds.base import results_of

        trained = self._trained
        return results_of(trained.task.kind).predict_samples(trained, inputs)

    def evaluate(
        self,
        data: str | os.PathLike[str] | None = None,
        on_bad_rows: Literal["error", "skip"] = "error",
    ) -> dict[str, Any]:
        """Test the best checkpoint again, or on other labelled data.

        Args:
            data: A labelled table or folder in the format of the run's test data. The result is
                also written to `evaluations/` in the run folder. None takes the run's test data.
            on_bad_rows: For other data: raise an error, or leave bad rows out and list them.

        Returns:
            The metrics, and `n`, the number of samples.

        Raises:
            UserError: If the data cannot be read, or the test data has changed since the run.
        """
        from engine.evaluation import evaluate_on, retest

        if data is None:
            task = retest(self.folder, merge_tokens=self._merge_tokens).task
            result = task.results["test"]
            return {"n": result.count, **result.metrics}
        record = evaluate_on(self.folder, Path(data), on_bad_rows, self._merge_tokens)
        return self._folder.read_json(str(record.relative_to(self.folder)))

    def report(self) -> Path:
        """Write the page report.html again, and return its path."""
        from reports.page import write_report

        return write_report(self.folder)

    def _repr_html_(self) -> str:
        """Return the page for a notebook, in a frame, so that its styles stay inside."""
        page = self._folder.report if self._folder.report.is_file() else self.report()
        return _FRAME.format(page=escape(page.read_text(encoding="utf-8")))

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
