"""Base class of the studies that `depth` names, and how a run does one."""

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, cast

from omegaconf import DictConfig
from rich.console import Console

from engine.build import RunObjects
from engine.config.errors import ConfigError
from engine.config.instantiating import build_object
from engine.results import count_parameters, measured
from lightning_modules.networks.backbones.divided_encoder import DividedEncoder
from reports.page import write_report
from run_folders.errors import one_line
from run_folders.run_folder import RunFolder

DEPTH = "depth.json"


@dataclass(frozen=True)
class StudyRequest:
    """What a study works with.

    Attributes:
        cfg: The settled config.
        folder: The run folder.
        objects: Datamodule, task and trainer of the run.
        train: Runs a job: its config, its folder, and the checkpoint to start from, if any.
    """

    cfg: DictConfig
    folder: RunFolder
    objects: RunObjects
    train: Callable[[DictConfig, RunFolder, str | None], float | None]

    @property
    def class_names(self) -> list[str]:
        """The names of the classes."""
        names: list[str] = cast(Any, self.objects.datamodule).class_names
        return names

    @property
    def encoder(self) -> DividedEncoder:
        """The backbone with its input.

        Raises:
            ConfigError: If it has no layers that a study can read.
        """
        task, features = self.objects.task, self.objects.task.features
        labels = self.objects.datamodule.labels_of("val")
        one_class = labels is not None and labels.ndim == 1 and not labels.is_floating_point()
        if not one_class:
            msg = (
                f"depth: {type(task).__name__} does not predict one class for each text or image; "
                f"set depth=none"
            )
            raise ConfigError(msg)
        if not isinstance(features, DividedEncoder):
            msg = (
                f"depth: {type(features).__name__} does not return the states of its layers; "
                f"set depth=none"
            )
            raise ConfigError(msg)
        if self.objects.trainer.world_size > 1:
            msg = "depth: a study runs in one process; set trainer.devices=1"
            raise ConfigError(msg)
        return features


class DepthStudy(ABC):
    """Answers how deep to thaw the backbone, in place of the training of a run."""

    @abstractmethod
    def run(self, request: StudyRequest) -> float:
        """Run the study and write `depth.json` and `metrics.json`.

        Args:
            request: The run's config, folder and objects.

        Returns:
            The accuracy on validation that a sweep compares.

        Raises:
            ConfigError: If the study does not fit the run.
        """


def write_study_metrics(
    request: StudyRequest, val: Mapping[str, float], *, features: float, fit: float
) -> None:
    """Write metrics.json, so that a sweep lists a study like a run.

    Args:
        request: The run's config, folder and objects.
        val: Metrics on validation.
        features: Seconds of the pass over the data.
        fit: Seconds of the training of probes, heads or rungs.
    """
    task, datamodule = request.objects.task, request.objects.datamodule
    durations = {
        "fit": round(fit, 3),
        "test": None,
        "epoch_mean": None,
        "features": round(features, 3),
    }
    request.folder.write_json(
        "metrics.json",
        {
            "kind": task.kind,
            "val": {"n": len(datamodule.splits["val"]), **val},
            "best": {},
            "parameters": count_parameters(task),
            "seconds": durations,
        },
    )


def run_study(request: StudyRequest, shown: Console, start: float) -> float:
    """Answer how deep to thaw, in place of training, and write the report.

    Args:
        request: The run's config, folder and objects.
        shown: The console of the run.
        start: When the run started, by `time.perf_counter`.

    Returns:
        The accuracy on validation.
    """
    folder = request.folder
    study: DepthStudy = build_object(request.cfg, "depth")
    score = study.run(request)
    metrics = folder.read_json("metrics.json")
    spent = measured(folder, request.objects, metrics["seconds"], start)
    folder.write_json("metrics.json", metrics | spent)
    folder.write_status("running", "report")
    write_report(folder.path)
    folder.write_status("finished", "report")
    shown.print(f"report: {one_line(folder.report)}", highlight=False, soft_wrap=True)
    return score
