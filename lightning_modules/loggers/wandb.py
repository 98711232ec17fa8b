"""Weights & Biases logger: online with an API key, else offline into the run folder.

It never prompts for a key.
"""

import io
import logging
import os
from pathlib import Path
from typing import Any, Literal

import lightning.pytorch.loggers
import wandb
from lightning.fabric.loggers.logger import rank_zero_experiment
from PIL import Image
from wandb.sdk.lib import wbauth

from datamodules.batches import IGNORE_INDEX
from lightning_modules.loggers.base import (
    Confusion,
    Content,
    Dashboard,
    FinalMetrics,
    LoggerError,
    Picture,
    Table,
    confusion_rows,
)
from run_folders.errors import brief

log = logging.getLogger(__name__)

Mode = Literal["online", "offline", "disabled"]

# W&B would collect the command line, the installed packages and the console output by itself. The
# run folder records the same without secrets, and Thaw logs its content instead.
_COLLECT_NOTHING: dict[str, Any] = {
    "console": "off",
    "disable_code": True,
    "disable_git": True,
    "disable_job_creation": True,
    "save_code": False,
    "x_disable_meta": True,
    "x_save_requirements": False,
}
_ARTIFACT_TYPES = {"plan": "record", "report": "report", "checkpoint": "model"}
_EPOCHWISE = ("train/*", "val/*", "lr/*", "seconds")
_SETTINGS = {"tags": "run_tags"}  # argument -> W&B's name of the setting
_START_SECONDS = 30  # W&B itself would wait for 90 s for a server that is not there
_MOST_PICTURES = 100  # the most that W&B shows at a time


class WandbLogger(Dashboard, lightning.pytorch.loggers.WandbLogger):
    """Logger of a W&B run."""

    def __init__(
        self,
        save_dir: str,
        project: str = "thaw",
        entity: str | None = None,
        name: str | None = None,
        group: str | None = None,
        job_type: str | None = None,
        tags: list[str] | None = None,
        offline: bool | None = None,  # noqa: FBT001 - a switch of the config
        log_checkpoint: bool = True,  # noqa: FBT001, FBT002 - a switch of the config
        run_id: str | None = None,
    ) -> None:
        """Set the options of the run; `begin` starts it.

        Args:
            save_dir: The run folder.
            project: W&B project.
            entity: W&B user or team; None uses the default of the API key.
            name: Name of the run.
            group: Name of the group of runs, such as the runs of a sweep.
            job_type: W&B's job type of the run.
            tags: Tags of the run.
            offline: Whether to write into the run folder only, to be uploaded with `wandb sync`;
                None means offline if no API key is found.
            log_checkpoint: Whether to log the best checkpoint as an artifact.
            run_id: ID of an earlier run to resume.

        Raises:
            LoggerError: If online mode is requested and no API key is found, the key is invalid, or
                W&B rejects a value, such as a tag of more than 64 characters.
        """
        tags = tags or _tags_of_environment()
        _check_values(project=project, tags=tags, run_id=run_id)
        has_key = offline is not True and _has_key()
        self.mode = _mode(offline, has_key=has_key)
        self.offline_without_key = (
            offline is None and not has_key and "WANDB_MODE" not in os.environ
        )
        self.log_checkpoint = log_checkpoint
        more: dict[str, Any] = {"silent": True} if self.mode == "offline" else {}
        if "WANDB_INIT_TIMEOUT" not in os.environ:
            more["init_timeout"] = _START_SECONDS
        settings = wandb.Settings(**{**_COLLECT_NOTHING, **more})
        super().__init__(
            name=name,
            project=project,
            save_dir=save_dir,
            entity=entity,
            group=group,
            job_type=job_type,
            tags=tags,
            id=run_id,
            mode=self.mode,
            settings=settings,
        )
        del self._wandb_init["anonymous"]  # W&B warns if the argument is passed at all

    @property
    @rank_zero_experiment
    def experiment(self) -> Any:  # noqa: ANN401 - a W&B run, or W&B's dummy run in disabled mode
        """The W&B run; it is started on first access."""
        if self._experiment is None:
            try:
                self._experiment = wandb.init(**self._wandb_init)
            except wandb.errors.Error as error:
                msg = (
                    f"logger=wandb: {brief(error)}; "
                    f"set logger.wandb.offline=true to log into the run folder instead"
                )
                raise LoggerError(msg) from error
            # x axes: the epoch for values of epochs, the step for values of steps.
            self._experiment.define_metric("epoch")
            self._experiment.define_metric("trainer/global_step")
            for names in _EPOCHWISE:
                self._experiment.define_metric(names, step_metric="epoch")
            self._experiment.define_metric("step/*", step_metric="trainer/global_step")
        return self._experiment

    def begin(self, config: dict[str, Any]) -> None:
        """Start the run and log its config, commit and environment; see `Dashboard`."""
        run = self.experiment
        run.config.update(config, allow_val_change=True)
        if self.mode == "offline":
            why = "no key was found, so " if self.offline_without_key else ""
            log.info(
                "W&B: %sthe run is logged offline; to upload it: wandb sync %s",
                why,
                Path(str(run.dir)).parent,
            )

    def publish(self, name: str, content: Content) -> None:
        """Log metrics to the summary, files as artifacts, and others as W&B tables, charts, images.

        See `Dashboard`.
        """
        run = self.experiment
        match content:
            case FinalMetrics():
                # W&B's tables and sweeps read the summary, which has the last epoch by default.
                run.summary.update({**content.values, **content.chosen})
            case Table():
                run.log({name: _table(content.columns, content.rows)})
            case Confusion():
                run.log({name: _confusion_chart(content)})
            case Path():
                self._publish_file(name, content)
            case _:
                run.log({name: [_image(picture) for picture in content[:_MOST_PICTURES]]})

    def _publish_file(self, name: str, path: Path) -> None:
        """Log a file as an artifact; an HTML page is also shown in the run."""
        artifact_type = _ARTIFACT_TYPES[name]
        if artifact_type == "model" and not self.log_checkpoint:
            return
        artifact = wandb.Artifact(f"{name}-{self.experiment.id}", type=artifact_type)
        # The files of a finished run do not change, so W&B need not copy them to its own folder.
        artifact.add_file(str(path), policy="immutable")
        self.experiment.log_artifact(artifact, aliases=["best"] if artifact_type == "model" else [])
        if path.suffix == ".html":
            self.experiment.log({name: wandb.Html(path.read_text(encoding="utf-8"), inject=False)})

    def close(self, code: int) -> None:
        """End the run, so that this process can start another one."""
        if self._experiment is not None:
            self._experiment.finish(exit_code=code)
            self._experiment = None


def _tags_of_environment() -> list[str] | None:
    """Return the tags of WANDB_TAGS; None if it has none."""
    tags = [tag.strip() for tag in os.environ.get("WANDB_TAGS", "").split(",")]
    return [tag for tag in tags if tag] or None


def _check_values(**values: object) -> None:
    """Check values of a run as W&B would do when the run starts, but before anything is built.

    Raises:
        LoggerError: If W&B rejects a value.
    """
    for name, value in values.items():
        try:
            wandb.Settings(**{_SETTINGS.get(name, name): value})  # type: ignore[arg-type]
        except (wandb.errors.Error, ValueError) as error:
            # The text of a validation error has several lines, with an address of its library.
            errors = error.errors() if hasattr(error, "errors") else [{"msg": brief(error)}]
            reason = errors[0]["msg"].removeprefix("Value error, ")
            msg = f"logger.wandb.{name}: {reason}; correct it"
            raise LoggerError(msg) from error


def _table(columns: list[Any], rows: list[Any]) -> wandb.Table:
    return wandb.Table(columns=columns, data=rows, allow_mixed_types=True)


def _confusion_chart(confusion: Confusion) -> Any:  # noqa: ANN401 - a W&B chart
    """Return W&B's confusion matrix, built from counts.

    `wandb.plot.confusion_matrix` needs a list of labels; for pixels there would be millions.
    """
    columns = ["Actual", "Predicted", "nPredictions"]
    table = _table(columns, confusion_rows(confusion).rows)
    fields = {column: column for column in columns}
    return wandb.plot_table(
        "wandb/confusion_matrix/v1", table, fields, {"title": "confusion matrix"}
    )


def _image(picture: Picture) -> wandb.Image:
    """Return a picture with its caption; W&B can show and hide each of its masks."""
    overlay = picture.overlay
    if overlay is None:
        return wandb.Image(
            Image.open(io.BytesIO(picture.content)).convert("RGB"), caption=picture.caption
        )
    labels = {**dict(enumerate(overlay.names)), IGNORE_INDEX: "not labelled"}
    masks = {
        name: {"mask_data": mask, "class_labels": labels} for name, mask in overlay.masks.items()
    }
    return wandb.Image(overlay.image, caption=picture.caption, masks=masks)


def _has_key() -> bool:
    """Return whether W&B finds credentials in the environment, in netrc or in its settings."""
    host = wandb.setup().settings.base_url
    try:
        session = wbauth.authenticate_session(
            host=host, source="thaw", prompt=False, update_session=False
        )
    except wandb.errors.Error as error:
        msg = (
            f"logger=wandb: {brief(error)}; "
            f"correct the credentials, or set logger.wandb.offline=true"
        )
        raise LoggerError(msg) from error
    return session is not None


def _mode(offline: bool | None, *, has_key: bool) -> Mode:  # noqa: FBT001 - the config's own value
    wanted = os.environ.get("WANDB_MODE")
    if offline is None and wanted in ("offline", "dryrun", "disabled"):
        return "disabled" if wanted == "disabled" else "offline"
    if offline is not None:
        online, setting = not offline, "logger.wandb.offline=false"
    else:
        online, setting = has_key or wanted in ("online", "run"), f"WANDB_MODE={wanted}"
    if online and not has_key:
        msg = (
            f"{setting}, but no W&B API key was found; "
            f"set WANDB_API_KEY, run wandb login, or remove that setting to log offline"
        )
        raise LoggerError(msg)
    return "online" if online else "offline"
