"""Trackio: a local dashboard, by default one folder beside all runs."""

import contextlib
import io
import logging
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from lightning.fabric.loggers.logger import rank_zero_experiment
from lightning.pytorch.loggers.logger import Logger
from lightning.pytorch.utilities import rank_zero_only

from lightning_modules.loggers.base import Dashboard, LoggerError, Origin, Picture, Table, confusion_rows, require
from lightning_modules.loggers.pictures import opened

log = logging.getLogger(__name__)


class TrackioLogger(Dashboard, Logger):
    """A run of Trackio."""

    def __init__(
        self,
        directory: str,
        project: str = "thaw",
        name: str | None = None,
        group: str | None = None,
        log_checkpoint: bool = True,  # noqa: FBT001, FBT002 - a switch of the config
    ) -> None:
        """State where the run goes; it begins with `begin`.

        Args:
            directory: Of Trackio's databases; TRACKIO_DIR, where it is set, is obeyed instead.
            project: Of Trackio.
            name: Of the run.
            group: Of runs that belong together, such as a sweep's.
            log_checkpoint: Whether the best checkpoint is an artifact of the run.

        Raises:
            LoggerError: If Trackio is not installed.
        """
        super().__init__()
        require("trackio", "trackio", "trackio")
        self._directory = Path(os.environ.get("TRACKIO_DIR") or directory).expanduser().resolve()
        self._project, self._run_name, self._group = project, name, group
        self.log_checkpoint = log_checkpoint
        self._config: dict[str, Any] = {}
        self._resume = "never"
        self._run: Any = None

    @property
    def name(self) -> str:
        """The project."""
        return self._project

    @property
    def version(self) -> str | None:
        """The run's name."""
        return self._run_name

    @property
    @rank_zero_experiment
    def experiment(self) -> Any:  # noqa: ANN401 - a run of Trackio
        """The run; begins it where it has not.

        Raises:
            LoggerError: If this process logged to another folder before.
        """
        if self._run is None:
            # Read once, when it is imported.
            stated = os.environ.get("TRACKIO_DIR")
            os.environ["TRACKIO_DIR"] = str(self._directory)
            import trackio
            from trackio.utils import TRACKIO_DIR

            if stated is None:  # ours is not to be taken for the user's by the next job of this process
                del os.environ["TRACKIO_DIR"]

            if self._directory != TRACKIO_DIR:
                msg = f"logger=trackio: this process logs to {TRACKIO_DIR} already; {self._directory} needs another one"
                raise LoggerError(msg)
            with _muted():
                self._run = trackio.init(
                    self._project,
                    name=self._run_name,
                    group=self._group,
                    config=self._config,
                    resume=self._resume,
                    embed=False,
                    auto_log_cpu=False,
                )
        return self._run

    def begin(self, origin: Origin, run_id: str | None) -> str | None:
        """Begin the run, with config, commit and environment; see `Dashboard`."""
        self._config = {**origin.config, "provenance": origin.provenance}
        if run_id is not None:
            self._run_name, self._resume = run_id, "allow"
        name = str(self.experiment.name)
        log.info("Trackio: logged to %s; to look at it: TRACKIO_DIR=%s trackio show", self._directory, self._directory)
        return name

    @rank_zero_only
    def log_metrics(self, metrics: Mapping[str, float], step: int | None = None) -> None:
        """Log values of a step."""
        self.experiment.log(dict(metrics), step=step)

    def publish_figures(self, figures: dict[str, float], chosen: dict[str, float]) -> None:  # noqa: ARG002 - `best/` has them
        """As figures of the last step."""
        self.experiment.log(dict(figures))

    def publish_table(self, name: str, table: Table) -> None:
        """As a table."""
        import trackio

        self.experiment.log({name: trackio.Table(columns=table.columns, data=table.rows)})

    def publish_confusion(self, name: str, classes: list[str], counts: list[list[int]]) -> None:
        """As a table."""
        self.publish_table(name, confusion_rows(classes, counts))

    def publish_pictures(self, name: str, pictures: list[Picture]) -> None:
        """As images with captions."""
        import trackio

        for number, picture in enumerate(pictures):
            self.experiment.log({f"{name}/{number:03}": trackio.Image(opened(picture.content), caption=picture.caption)})

    def publish_file(self, name: str, path: Path, kind: str) -> None:
        """As an artifact."""
        if kind != "model" or self.log_checkpoint:
            self.experiment.log_artifact(str(path), name=name, type=kind)

    def close(self, code: int) -> None:
        """End the run; `exit_code` says how."""
        if self._run is not None:
            import trackio

            with _muted():
                self._run.log({"exit_code": code})
                trackio.finish()  # type: ignore[no-untyped-call]
            self._run = None


@contextlib.contextmanager
def _muted() -> Any:  # noqa: ANN401 - a context
    """Keep what Trackio prints, several lines a run, off the screen."""
    with contextlib.redirect_stdout(io.StringIO()):
        yield
