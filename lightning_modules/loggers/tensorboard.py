"""TensorBoard's event files, in the run folder."""

import json
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import lightning.pytorch.loggers

from lightning_modules.loggers.base import Dashboard, Origin, Picture, Table, require
from lightning_modules.loggers.pictures import confusion_figure, pixels

_MOST_ROWS, _LONGEST_CELL = 200, 300  # of a table as text, in a browser


class TensorBoardLogger(Dashboard, lightning.pytorch.loggers.TensorBoardLogger):
    """A run of TensorBoard: `tensorboard --logdir` on any folder above shows it."""

    def __init__(self, save_dir: str, name: str = "tensorboard") -> None:
        """State where the files go.

        Args:
            save_dir: The run folder.
            name: Of the folder in it.

        Raises:
            LoggerError: If TensorBoard is not installed.
        """
        require("tensorboard", "tensorboard", "tensorboard")
        # TensorBoard's own switch: where TensorFlow is installed, it would load all of it to open a file.
        sys.modules.setdefault("tensorboard.compat.notf", ModuleType("notf"))
        super().__init__(save_dir=save_dir, name=name, version="", default_hp_metric=False)

    def begin(self, origin: Origin, run_id: str | None) -> None:  # noqa: ARG002 - the folder is the run
        """Write config, commit and environment as text."""
        for name, values in (("config", origin.config), ("provenance", origin.provenance)):
            self._add_text(name, "    " + json.dumps(values, indent=2, ensure_ascii=False).replace("\n", "\n    "))

    def publish_figures(self, figures: dict[str, float], chosen: dict[str, float]) -> None:
        """As a table; and as points beside the curves, where they may be compared between runs."""
        self.publish_table(
            "figures", Table(["figure", "value"], [[key, value] for key, value in {**chosen, **figures}.items()])
        )
        self.log_metrics(figures, 0)

    def publish_table(self, name: str, table: Table) -> None:
        """As text with columns, as far as it can be read; the run folder has all of it."""
        shown = table.rows[:_MOST_ROWS]
        lines = [table.columns, ["---"] * len(table.columns), *shown]
        text = "\n".join("| " + " | ".join(map(_cell, line)) + " |" for line in lines)
        rest = len(table.rows) - len(shown)
        self._add_text(name, text + (f"\n\n{rest} more rows" if rest else ""))

    def publish_confusion(self, name: str, classes: list[str], counts: list[list[int]]) -> None:
        """As a picture."""
        self.experiment.add_figure(name, confusion_figure(classes, counts), 0)

    def publish_pictures(self, name: str, pictures: list[Picture]) -> None:
        """As images that are named for their captions."""
        for number, picture in enumerate(pictures):
            self.experiment.add_image(f"{name}/{number:03} {picture.caption}", pixels(picture.content), 0, dataformats="HWC")

    def publish_file(self, name: str, path: Path, kind: str) -> None:
        """Its place: TensorBoard takes no files."""
        self._add_text(f"{kind}/{name}", str(path))

    def finalize(self, status: str) -> None:  # noqa: ARG002 - Lightning's signature
        """Write what is not written: Lightning calls it behind every stage, and the run goes on."""
        if self._experiment is not None:
            self.experiment.flush()

    def close(self, code: int) -> None:
        """Say how the run ended, and write what is not written."""
        if self._experiment is not None:
            self._add_text("state", "finished" if code == 0 else f"failed (exit code {code})")
            self.experiment.close()

    def _add_text(self, name: str, text: str) -> None:
        writer: Any = self.experiment
        writer.add_text(name, text, 0)


def _cell(value: object) -> str:
    text = f"{value:.6g}" if isinstance(value, float) else str("" if value is None else value)
    return " ".join(text.split())[:_LONGEST_CELL].replace("|", "\\|")
