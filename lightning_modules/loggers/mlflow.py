"""MLflow: by default one database beside all runs."""

import logging
import os
import re
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from pathlib import Path
from typing import Any

import lightning.pytorch.loggers
from filelock import FileLock

from lightning_modules.loggers.base import Dashboard, LoggerError, Origin, Picture, Table, require
from lightning_modules.loggers.pictures import confusion_figure, opened

_SQLITE = "sqlite:///"
_LOGIN = re.compile(r"://[^/@\s]+@")


class MLFlowLogger(Dashboard, lightning.pytorch.loggers.MLFlowLogger):
    """A run of MLflow."""

    def __init__(
        self,
        tracking_uri: str,
        artifacts: str,
        experiment: str = "thaw",
        name: str | None = None,
        group: str | None = None,
        tags: list[str] | None = None,
        log_checkpoint: bool = True,  # noqa: FBT001, FBT002 - a switch of the config
    ) -> None:
        """State where the run goes; it begins with `begin`.

        Args:
            tracking_uri: `sqlite:///<file>`, or the address of a server.
            artifacts: Folder of an sqlite database's artifacts.
            experiment: Of MLflow: what the run stands under.
            name: Of the run.
            group: Of runs that belong together, such as a sweep's.
            tags: Words to find it by.
            log_checkpoint: Whether the best checkpoint is an artifact of the run.

        Raises:
            LoggerError: If MLflow or what it needs for a database is not installed, or there is no logging to the address.
        """
        for module in ("mlflow", "sqlalchemy", "alembic"):
            require(module, "mlflow", "mlflow")
        os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")
        os.environ.setdefault("MLFLOW_LOGGING_LEVEL", "WARNING")  # read when it is imported
        for chatty in ("mlflow", "alembic"):
            logging.getLogger(chatty).setLevel(logging.WARNING)
        place = None
        if tracking_uri.startswith(_SQLITE):
            database = Path(tracking_uri.removeprefix(_SQLITE)).expanduser().resolve()
            tracking_uri, place = f"{_SQLITE}{database}", Path(artifacts).expanduser().resolve()
        self.log_checkpoint = log_checkpoint
        stated = {"group": group, "tags": ", ".join(tags or [])}
        with _telling(tracking_uri), _alone(tracking_uri):
            super().__init__(
                experiment_name=experiment,
                run_name=name,
                tracking_uri=tracking_uri,
                tags={key: value for key, value in stated.items() if value},
            )
            client: Any = self._mlflow_client
            if client.get_experiment_by_name(experiment) is None:
                try:
                    client.create_experiment(experiment, artifact_location=place and place.as_uri())
                except Exception:  # MLflow's own, which is imported late
                    if client.get_experiment_by_name(experiment) is None:  # another job was not faster
                        raise

    def begin(self, origin: Origin, run_id: str | None) -> str | None:
        """Begin the run, with config, commit and environment; see `Dashboard`."""
        with _telling(self._tracking_uri):
            self._run_id = run_id
            if origin.commit:
                self.tags = {**(self.tags or {}), "mlflow.source.git.commit": origin.commit}
            client: Any = self.experiment
            run = str(self.run_id)
            if run_id is None:  # a parameter cannot change
                lightning.pytorch.loggers.MLFlowLogger.log_hyperparams(self, origin.config)
            else:
                client.update_run(run, status="RUNNING")
            client.log_dict(run, {**origin.config, "provenance": origin.provenance}, "config.json")
        return run

    def publish_figures(self, figures: dict[str, float], chosen: dict[str, float]) -> None:  # noqa: ARG002 - `best/` has them
        """As figures without a curve."""
        self.log_metrics(figures)

    def publish_table(self, name: str, table: Table) -> None:
        """As a table that the page of artifacts shows."""
        columns = {column: [row[place] for row in table.rows] for place, column in enumerate(table.columns)}
        self.experiment.log_table(self.run_id, columns, f"{name}.json")

    def publish_confusion(self, name: str, classes: list[str], counts: list[list[int]]) -> None:
        """As a picture, and the counts as they are."""
        self.experiment.log_figure(self.run_id, confusion_figure(classes, counts), f"{name}.png")
        self.experiment.log_dict(self.run_id, {"classes": classes, "counts": counts}, f"{name}.json")

    def publish_pictures(self, name: str, pictures: list[Picture]) -> None:
        """As files that are named for their captions."""
        for number, picture in enumerate(pictures):
            words = re.sub(r"[^\w.-]+", "_", picture.caption)[:100]
            self.experiment.log_image(self.run_id, opened(picture.content), f"{name}/{number:03}_{words}.png")

    def publish_file(self, name: str, path: Path, kind: str) -> None:  # noqa: ARG002 - the file has its own name
        """As an artifact."""
        if kind != "model" or self.log_checkpoint:
            self.experiment.log_artifact(self.run_id, str(path), artifact_path=kind)

    def finalize(self, status: str = "success") -> None:
        """Nothing: Lightning calls it behind every stage, and the run goes on."""

    def close(self, code: int) -> None:
        """Mark the run as finished or failed."""
        if self._initialized:
            self.experiment.set_terminated(self.run_id, "FINISHED" if code == 0 else "FAILED")


@contextmanager
def _telling(uri: str) -> Iterator[None]:
    """Make a `LoggerError` of whatever goes wrong."""
    try:
        yield
    except Exception as error:
        lines = str(error).strip().splitlines() or [type(error).__name__]
        msg = f"logger=mlflow cannot log to {_LOGIN.sub('://', uri)}: {_LOGIN.sub('://', lines[0])}"
        raise LoggerError(msg) from error


def _alone(uri: str) -> AbstractContextManager[Any]:
    """Keep other processes of this machine away: jobs of a sweep that begin together would each make the database's tables."""
    if not uri.startswith(_SQLITE):
        return nullcontext()
    database = Path(uri.removeprefix(_SQLITE))
    database.parent.mkdir(parents=True, exist_ok=True)
    return FileLock(f"{database}.lock")
