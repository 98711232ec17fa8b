"""Plain files, in the run folder."""

import csv
import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import lightning.pytorch.loggers

from lightning_modules.loggers.base import Dashboard, Origin, Picture, Table, confusion_rows


class CSVLogger(Dashboard, lightning.pytorch.loggers.CSVLogger):
    """Curves in `metrics.csv`, a file for each table, a folder for each group of pictures.

    Files of the run folder are not copied: they lie beside.
    """

    def begin(self, origin: Origin, run_id: str | None) -> None:  # noqa: ARG002 - each part of a run has its own folder
        """Write what the run starts from."""
        values = {**origin.config, "provenance": origin.provenance}
        self._new("config.json").write_text(json.dumps(values, indent=2, ensure_ascii=False), encoding="utf-8")

    def log_metrics(self, metrics: Mapping[str, Any], step: int | None = None) -> None:
        """Add a row and write it down at once: rows come seldom, and a run may be killed."""
        super().log_metrics(dict(metrics), step)
        self.save()

    def publish_figures(self, figures: dict[str, float], chosen: dict[str, float]) -> None:
        """As one more table."""
        self.publish_table(
            "figures", Table(["figure", "value"], [[key, value] for key, value in {**chosen, **figures}.items()])
        )

    def publish_table(self, name: str, table: Table) -> None:
        """As a file."""
        with self._new(f"{name}.csv").open("w", newline="", encoding="utf-8") as file:
            writer = csv.writer(file, lineterminator="\n")
            writer.writerow(table.columns)
            writer.writerows(table.rows)

    def publish_confusion(self, name: str, classes: list[str], counts: list[list[int]]) -> None:
        """As a table."""
        self.publish_table(name, confusion_rows(classes, counts))

    def publish_pictures(self, name: str, pictures: list[Picture]) -> None:
        """As files that are named for their captions."""
        for number, picture in enumerate(pictures):
            words = re.sub(r"[^\w.-]+", "_", picture.caption)[:100]
            suffix = "png" if picture.content.startswith(b"\x89PNG") else "webp"
            self._new(f"{name}/{number:03}_{words}.{suffix}").write_bytes(picture.content)

    def publish_file(self, name: str, path: Path, kind: str) -> None:
        """Nothing: the file is there."""

    def close(self, code: int) -> None:  # noqa: ARG002 - status.json says it
        """Write what is not written."""
        self.finalize("success")

    def _new(self, name: str) -> Path:
        path = Path(self.log_dir) / name
        path.parent.mkdir(parents=True, exist_ok=True)
        return path
