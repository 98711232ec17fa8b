"""Weights & Biases: online where there is a key, into the run folder where there is none, and never a question."""

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

from lightning_modules.loggers.base import (
    UNLABELLED,
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

# Whatever W&B would collect by itself: the command line, the environment's packages, the screen.
# The run folder says it all without secrets, and that is what is logged.
_COLLECT_NOTHING: dict[str, Any] = {
    "console": "off",
    "disable_code": True,
    "disable_git": True,
    "disable_job_creation": True,
    "save_code": False,
    "x_disable_meta": True,
    "x_save_requirements": False,
}
_KINDS = {"plan": "record", "report": "report", "checkpoint": "model"}  # of artifacts
_EPOCHWISE = ("train/*", "val/*", "lr/*", "seconds")
_MOST_PICTURES = 100  # W&B shows no more at a time


class WandbLogger(Dashboard, lightning.pytorch.loggers.WandbLogger):
    """A run of W&B."""

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
        """State where the run goes; it begins with `begin`.

        Args:
            save_dir: The run folder.
            project: Of W&B.
            entity: User or team; None is the key's own.
            name: Of the run.
            group: Of runs that belong together, such as a sweep's.
            job_type: What the run does.
            tags: Words to find it by.
            offline: Whether to write into the run folder alone, for `wandb sync` to upload; None
                does so where no key is found.
            log_checkpoint: Whether the best checkpoint is an artifact of the run.
            run_id: Of an earlier run, to go on with it.

        Raises:
            LoggerError: If online was asked for and there is no key, or the key is none.
        """
        has_key = offline is not True and _has_key()
        self.mode = _mode(offline, has_key=has_key)
        self.offline_for_want_of_a_key = (
            offline is None and not has_key and "WANDB_MODE" not in os.environ
        )
        self.log_checkpoint = log_checkpoint
        quiet = {"silent": True} if self.mode == "offline" else {}
        settings = wandb.Settings(**{**_COLLECT_NOTHING, **quiet})
        super().__init__(
            name=name,
            project=project,
            save_dir=save_dir,
            entity=entity,
            group=group,
            job_type=job_type,
            tags=tags or None,
            id=run_id,
            mode=self.mode,
            settings=settings,
        )
        del self._wandb_init["anonymous"]  # W&B warns of the mere argument

    @property
    @rank_zero_experiment
    def experiment(self) -> Any:  # noqa: ANN401 - a run of W&B, or what stands for one where it is disabled
        """The run; begins it where it has not."""
        if self._experiment is None:
            try:
                self._experiment = wandb.init(**self._wandb_init)
            except wandb.errors.Error as error:
                reason = brief(error)
                msg = f"logger=wandb: {reason}; logger.wandb.offline=true logs into the run folder instead"
                raise LoggerError(msg) from error
            # Curves of epochs over the epoch, curves of steps over the step.
            self._experiment.define_metric("epoch")
            self._experiment.define_metric("trainer/global_step")
            for names in _EPOCHWISE:
                self._experiment.define_metric(names, step_metric="epoch")
            self._experiment.define_metric("step/*", step_metric="trainer/global_step")
        return self._experiment

    def begin(self, config: dict[str, Any]) -> None:
        """Begin the run, with config, commit and environment; see `Dashboard`."""
        run = self.experiment
        run.config.update(config, allow_val_change=True)
        if self.mode == "offline":
            why = "no key was found, so " if self.offline_for_want_of_a_key else ""
            log.info(
                "W&B: %sthe run is logged offline; to upload it: wandb sync %s",
                why,
                Path(str(run.dir)).parent,
            )

    def publish(self, name: str, content: Content) -> None:
        """Metrics into the summary, files as artifacts, the rest as what W&B shows it with."""
        run = self.experiment
        match content:
            case FinalMetrics():  # W&B's tables and sweeps look at the summary, which else has the last epoch's
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
        """As an artifact; a page is shown in the run too."""
        kind = _KINDS[name]
        if kind == "model" and not self.log_checkpoint:
            return
        artifact = wandb.Artifact(f"{name}-{self.experiment.id}", type=kind)
        # Not copied into W&B's own folder first: what a finished run has written does not change.
        artifact.add_file(str(path), policy="immutable")
        self.experiment.log_artifact(artifact, aliases=["best"] if kind == "model" else [])
        if path.suffix == ".html":
            self.experiment.log({name: wandb.Html(path.read_text(encoding="utf-8"), inject=False)})

    def close(self, code: int) -> None:
        """End the run, so that the next one of this process is another."""
        if self._experiment is not None:
            self._experiment.finish(exit_code=code)
            self._experiment = None


def _table(columns: list[Any], rows: list[Any]) -> wandb.Table:
    return wandb.Table(columns=columns, data=rows, allow_mixed_types=True)


def _confusion_chart(confusion: Confusion) -> Any:  # noqa: ANN401 - a chart of W&B
    """W&B's own chart, from counts: of millions of pixels there is no list of labels."""
    columns = ["Actual", "Predicted", "nPredictions"]
    table, fields = (
        _table(columns, confusion_rows(confusion).rows),
        {column: column for column in columns},
    )
    return wandb.plot_table(
        "wandb/confusion_matrix/v1", table, fields, {"title": "confusion matrix"}
    )


def _image(picture: Picture) -> wandb.Image:
    """With its caption; masks become masks that can be switched on and off."""
    overlay = picture.overlay
    if overlay is None:
        return wandb.Image(
            Image.open(io.BytesIO(picture.content)).convert("RGB"), caption=picture.caption
        )
    labels = {**dict(enumerate(overlay.names)), UNLABELLED: "not labelled"}
    masks = {
        name: {"mask_data": mask, "class_labels": labels} for name, mask in overlay.masks.items()
    }
    return wandb.Image(overlay.image, caption=picture.caption, masks=masks)


def _has_key() -> bool:
    """Whether W&B finds credentials where it looks for them: environment, netrc, its own settings."""
    host = wandb.setup().settings.base_url
    try:
        return (
            wbauth.authenticate_session(
                host=host, source="thaw", prompt=False, update_session=False
            )
            is not None
        )
    except wandb.errors.Error as error:
        msg = f"logger=wandb: {brief(error)}; mend it, or give logger.wandb.offline=true"
        raise LoggerError(msg) from error


def _mode(offline: bool | None, *, has_key: bool) -> Mode:  # noqa: FBT001 - as the config has it
    wanted = os.environ.get("WANDB_MODE")
    if offline is None and wanted in ("offline", "dryrun", "disabled"):
        return "disabled" if wanted == "disabled" else "offline"
    if offline is not None:
        online, asked = not offline, "logger.wandb.offline=false"
    else:
        online, asked = has_key or wanted in ("online", "run"), f"WANDB_MODE={wanted}"
    if online and not has_key:
        msg = f"{asked}, and no key of W&B was found; set WANDB_API_KEY, run wandb login, or leave it out to log offline"
        raise LoggerError(msg)
    return "online" if online else "offline"
