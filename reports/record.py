"""The content of run folders as a report reads it.

A run that failed has recorded less, and its page shows what it recorded.
"""

import os
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import pandas as pd

from reports.tables import check_columns, read_parquet
from run_folders.errors import UserError
from run_folders.kinds import metrics_by_name
from run_folders.old_names import kind_of_metrics
from run_folders.run_folder import RunFolder
from run_folders.untrusted import MAX_YAML, damaged, read_text, read_yaml
from run_folders.value_types import type_fault


class NotARunError(UserError, ValueError):
    """The folder is not a run folder."""


@dataclass(frozen=True)
class RunRecord:
    """The record of one run.

    Attributes:
        folder: Path of the run folder.
        status, metrics, provenance, plan: Content of the JSON files; empty if the run ended before
            it wrote the file.
        depth: Content of depth.json; empty if the run is no study of depth.
        config: Content of config.yaml; empty if the run ended before it wrote the file.
        history: One row per epoch; all columns numeric.
    """

    folder: Path
    status: dict[str, Any]
    metrics: dict[str, Any]
    provenance: dict[str, Any]
    plan: dict[str, Any]
    config: dict[str, Any]
    history: pd.DataFrame
    depth: dict[str, Any] = field(default_factory=dict)

    @property
    def state(self) -> str:
        """State of the run; a run that is writing its report, its last stage, is `finished`."""
        drawing = self.status.get("stage") == "report" and self.status.get("state") == "running"
        return "finished" if drawing else str(self.status.get("state"))

    @property
    def config_text(self) -> str:
        """The text of config.yaml."""
        return read_text(RunFolder(self.folder).config, MAX_YAML)

    @property
    def name(self) -> str:
        """Experiment and time: the last two parts of the path."""
        return "/".join(self.folder.parts[-2:])

    @property
    def kind(self) -> str | None:
        """The kind of task; None if the run ended before it wrote metrics."""
        stated = self.metrics.get("kind")
        return kind_of_metrics(self.metrics) if stated is None else str(stated)

    @cached_property
    def predictions(self) -> pd.DataFrame | None:
        """One row per test sample, ordered by index; None if the run was not tested."""
        path = RunFolder(self.folder).predictions
        return read_parquet(path) if os.path.lexists(path) else None

    @property
    def has_val_predictions(self) -> bool:
        """Whether the run predicted the validation split; version 0.1 did not."""
        return RunFolder(self.folder).predictions_of("val").is_file()

    @cached_property
    def pictures(self) -> dict[int, bytes]:
        """Index of a test sample -> its picture as a file; empty if samples are not images."""
        return dict(
            zip(self._pictures["index"].tolist(), self._pictures["picture"].tolist(), strict=True)
        )

    @property
    def picture_groups(self) -> dict[int, str]:
        """Index of a test sample -> its group (worst, median, best); empty if there are none."""
        groups = self._pictures.get("group")
        return (
            {}
            if groups is None
            else dict(zip(self._pictures["index"].tolist(), groups.tolist(), strict=True))
        )

    @property
    def picture_layers(self) -> dict[int, tuple[bytes, bytes, bytes]]:
        """Index of a test sample -> its image, prediction and annotation, each as a file.

        Empty if the samples have no masks.
        """
        table = self._pictures
        if "annotation" not in table:
            return {}
        layers = zip(
            table["image"].tolist(),
            table["prediction"].tolist(),
            table["annotation"].tolist(),
            strict=True,
        )
        return dict(zip(table["index"].tolist(), layers, strict=True))

    @cached_property
    def _pictures(self) -> pd.DataFrame:
        path = RunFolder(self.folder).test_images
        if not os.path.lexists(path):
            return pd.DataFrame({"index": [], "picture": []})
        table = read_parquet(path)
        types = {"index": int, "picture": bytes, "group": str}
        layers = dict.fromkeys(("image", "prediction", "annotation"), bytes)
        masks = layers if "annotation" in table else {}
        needed = {name: kind for name, kind in types.items() if name != "group" or name in table}
        check_columns(path, table, {**needed, **masks})
        return table

    @property
    def test(self) -> dict[str, Any]:
        """Metrics of the test stage; empty if the run was not tested."""
        stage: dict[str, Any] = self.metrics.get("test", {})
        return stage


def read_run(path: Path) -> RunRecord:
    """Read a run folder.

    Args:
        path: The folder.

    Returns:
        The record of the run.

    Raises:
        NotARunError: If the folder has no status.json.
        DamagedFileError: If a file of the run is damaged.
    """
    folder = RunFolder(path)
    if not os.path.lexists(folder.path / "status.json"):
        msg = (
            f"{path} is no run folder: it has no status.json; "
            "give a folder such as runs/bert_finetune/2026-01-31_12-00-00"
        )
        raise NotARunError(msg)
    metrics = folder.read_json("metrics.json")
    _check_stages(folder.path / "metrics.json", metrics)
    history = pd.DataFrame(folder.read_history())
    return RunRecord(
        folder=folder.path,
        status=folder.read_json("status.json"),
        metrics=metrics,
        provenance=folder.read_json("provenance.json"),
        plan=folder.read_json("plan.json"),
        depth=folder.read_json("depth.json"),
        config=(read_yaml(folder.config, dict[str, Any]) if os.path.lexists(folder.config) else {}),
        history=history.apply(pd.to_numeric, errors="coerce"),
    )


def _check_stages(path: Path, metrics: dict[str, Any]) -> None:
    """Raise `DamagedFileError` if a known metric is not a number."""
    for stage in ("val", "test"):
        for name in metrics_by_name():
            fault = type_fault(metrics.get(stage, {}).get(name), float | None, f"{stage}.{name}")
            if fault:
                raise damaged(path, fault)
