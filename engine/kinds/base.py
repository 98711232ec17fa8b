"""Base classes of what the engine does for one kind of task."""

from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import pandas as pd

from datamodules.reading.errors import DataError
from datamodules.reading.formats import TableFormat
from engine.prediction.images import predict_images
from engine.prediction.samples import predicted_pictures, predicted_texts
from engine.prediction.table_writer import OutputColumns
from engine.prediction.texts import predict_texts
from engine.trained_run import TrainedRun
from lightning_modules.loggers.base import Content
from reports.record import RunRecord
from run_folders.kinds import KindError, kind_named, load_part
from run_folders.run_folder import RunFolderError

# Attribute `inputs` of a datamodule -> how new samples of it are read.
_INPUTS = {"texts": predict_texts, "images": predict_images}
_SAMPLES = {"texts": predicted_texts, "images": predicted_pictures}


@dataclass(frozen=True)
class PredictionRequest:
    """What `scripts/predict.py` was asked for.

    Attributes:
        inputs: Existing files or folders, at least one.
        output: The output; None takes a name derived from the inputs.
        column: The column of the inputs in a table; None takes the run's.
        on_bad_rows: Stop at a sample that cannot be read, or leave it out and count it.
        force: Whether to replace an existing output.
        annotations: Folder of annotated masks to show beside predicted ones; None if there is none.
        table_format: Encoding, delimiter and quoting of a text file.
    """

    inputs: Sequence[Path]
    output: Path | None
    column: str | None
    on_bad_rows: Literal["error", "skip"]
    force: bool
    annotations: Path | None
    table_format: TableFormat = TableFormat()

    def output_or(self, suffix: str) -> Path:
        """Return the output, or `<input>.predictions<suffix>` (predictions for several inputs)."""
        if self.output is not None:
            return self.output
        if len(self.inputs) > 1:
            return Path(f"predictions{suffix}")
        path = self.inputs[0]
        if path.is_dir():
            return path.resolve().with_name(f"{path.resolve().name}.predictions{suffix}")
        return path.with_suffix(f".predictions{suffix}")


class Results(ABC):
    """What the engine does for one kind of task: it records, publishes and predicts."""

    @abstractmethod
    def record(self, result: Any, datamodule: Any) -> dict[str, Any]:  # noqa: ANN401 - those of the kind
        """Return the test part of metrics.json.

        Args:
            result: The result of the stage, as the task's totals return it.
            datamodule: The datamodule of the run.

        Returns:
            JSON values: `n`, the number of samples, the metrics, and what the page needs beyond
            them.
        """

    @abstractmethod
    def predictions(self, result: Any, datamodule: Any, split: str) -> pd.DataFrame | None:  # noqa: ANN401 - those of the kind
        """Return the predictions of a split, one row for each sample.

        Args:
            result: The result of the stage.
            datamodule: The datamodule of the run.
            split: `val` or `test`.

        Returns:
            A table ordered by its first column, `index`. The last column is the reference by which
            the user knows a sample: its text, or the name of its file. None if samples were not
            kept.
        """

    def pictures(
        self,
        result: Any,  # noqa: ANN401, ARG002 - that of the kind; for subclasses
        datamodule: Any,  # noqa: ANN401, ARG002
        run: TrainedRun,  # noqa: ARG002
    ) -> pd.DataFrame | None:
        """Return pictures of test samples for the report.

        Args:
            result: The result of the test stage.
            datamodule: The datamodule of the run.
            run: The trained run, to predict with.

        Returns:
            A table with the columns `index` and `picture` (the content of a PNG or WebP file); None
            if samples have no pictures.
        """
        return None

    def contents(self, run: RunRecord) -> Iterator[tuple[str, str, Content]]:  # noqa: ARG002 - for subclasses
        """Yield what a tested run publishes: description, name and content; nothing by default."""
        yield from ()

    @abstractmethod
    def predict(self, run: TrainedRun, request: PredictionRequest) -> tuple[Path, int, int]:
        """Predict new samples.

        Args:
            run: A trained run.
            request: What was asked for.

        Returns:
            The output, and the numbers of predicted and of left out samples.

        Raises:
            DataError: If an input cannot be read.
            RunFolderError: If the output exists or has an unknown format.
        """

    def predict_samples(self, run: TrainedRun, inputs: Any) -> Any:  # noqa: ANN401, ARG002 - of the kind
        """Predict samples that a Python program passes.

        Args:
            run: A trained run.
            inputs: The samples; see `engine.prediction.samples`.

        Raises:
            RunFolderError: If this kind of task has no such prediction.
        """
        raise _unsupported(run)


class TableResults(Results):
    """Base class of the kinds whose predictions are columns of a table."""

    @abstractmethod
    def columns(self, run: TrainedRun) -> OutputColumns:
        """Return the columns that a prediction adds to a table."""

    def predict(self, run: TrainedRun, request: PredictionRequest) -> tuple[Path, int, int]:
        """Predict new texts or images and write a table; see `Results`."""
        if request.annotations is not None:
            msg = (
                f"--annotations {request.annotations}: "
                f"a {type(run.task).__name__} does not use annotations"
            )
            raise DataError(msg)
        target = request.output_or(".csv")
        if target.exists() and not request.force:
            msg = f"{target} exists; give another -o, or --force to replace it"
            raise RunFolderError(msg)
        read = _INPUTS.get(run.inputs)
        if read is None:
            raise _unsupported(run)
        done, bad = read(
            run,
            request.inputs,
            target,
            request.column,
            request.on_bad_rows,
            self.columns(run),
            request.table_format,
        )
        return target, done, bad

    def predict_samples(self, run: TrainedRun, inputs: Any) -> pd.DataFrame:  # noqa: ANN401 - texts or images
        """Predict texts or images, and return a table."""
        predicted = _SAMPLES.get(run.inputs)
        if predicted is None:
            raise _unsupported(run)
        return predicted(run, inputs, self.columns(run))


def _unsupported(run: TrainedRun) -> RunFolderError:
    target = run.cfg.data._target_
    return RunFolderError(f"prediction of new inputs of {target} is not supported")


def results_of(kind: str) -> Results:
    """Return what the engine does for a kind of task.

    Raises:
        KindError: If the kind is unknown, or its class is not a `Results`.
    """
    dotted = kind_named(kind).results
    cls = load_part(dotted)
    if not (isinstance(cls, type) and issubclass(cls, Results)):
        msg = f"kind of task {kind!r}: {dotted} is not a subclass of engine.kinds.base.Results"
        raise KindError(msg)
    return cls()
