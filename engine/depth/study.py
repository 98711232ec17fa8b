"""Base class of the studies that `depth` names."""

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, cast

from omegaconf import DictConfig

from engine.build import RunObjects
from engine.config.errors import ConfigError
from engine.results import count_parameters
from lightning_modules.networks.backbones.image_encoder import ImageEncoder
from lightning_modules.networks.backbones.text import TextEncoder
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
    def encoder(self) -> TextEncoder | ImageEncoder:
        """The backbone with its input.

        Raises:
            ConfigError: If it has no layers that a study can read.
        """
        task, features = self.objects.task, self.objects.task.features
        labels = self.objects.datamodule.labels_of("val")
        one_class = labels is not None and labels.ndim == 1 and not labels.is_floating_point()
        if not one_class or not isinstance(features, TextEncoder | ImageEncoder):
            msg = (
                f"depth: {type(task).__name__} does not predict one class for each text or image; "
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
    request: StudyRequest, val: Mapping[str, float], seconds: Mapping[str, float]
) -> None:
    """Write metrics.json, so that a sweep lists a study like a run.

    Args:
        request: The run's config, folder and objects.
        val: Metrics on validation.
        seconds: Durations of the pass over the data (`states`) and of the probes (`probes`).
    """
    task, datamodule = request.objects.task, request.objects.datamodule
    durations = {
        "fit": round(seconds["probes"], 3),
        "test": None,
        "epoch_mean": None,
        "features": round(seconds["states"], 3),
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
