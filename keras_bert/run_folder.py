"""Run folders of Keras: checkpoints and config differ from those of Lightning runs.

This module imports no large library.
"""

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import yaml

from engine.command_line.shell import shell_command
from engine.processes.outcome import describe
from engine.processes.signals import InterruptedRunError
from keras_bert.errors import KerasBertError
from run_folders.files import write_atomically, write_text
from run_folders.run_folder import RunFolder
from run_folders.untrusted import read_yaml


class KerasRunFolder(RunFolder):
    """Run folder with Keras checkpoints and the settings of `python -m keras_bert`."""

    @property
    def best_checkpoint(self) -> Path:
        """Path of the network from the epoch with the best monitored metric."""
        return self.path / "checkpoints" / "best.keras"

    @property
    def last_checkpoint(self) -> Path:
        """Path of the state needed to resume with the next epoch."""
        return self.path / "checkpoints" / "last.npz"

    def write_best(self, network: Any) -> None:  # noqa: ANN401 - a Keras model; keras is not imported
        """Save a network as the best checkpoint."""

        def save(temporary: Path) -> None:
            with TemporaryDirectory(dir=temporary.parent) as subfolder:
                file = Path(subfolder) / "best.keras"  # Keras requires this suffix
                network.save(file)
                file.replace(temporary)

        write_atomically(self.best_checkpoint, save)

    def write_config(self, content: dict[str, Any]) -> None:
        """Write config.yaml."""
        write_text(self.config, yaml.safe_dump(content, sort_keys=False, allow_unicode=True))

    def read_config(self) -> dict[str, Any]:
        """Read config.yaml.

        Raises:
            KerasBertError: If this is not a run folder of keras_bert.
            DamagedFileError: If the file is damaged.
        """
        content = read_yaml(self.config) if os.path.lexists(self.config) else None
        if not isinstance(content, dict) or "command" not in content:
            msg = f"{self.path} is no run folder of keras_bert: it has no config.yaml of keras_bert"
            raise KerasBertError(msg)
        return content


@contextmanager
def recorded(folder: KerasRunFolder) -> Iterator[None]:
    """Record an exception in status.json, and add a note with the command that resumes the run.

    Raises:
        RunFolderError: If another process runs in the folder.
    """
    with folder.locked(), _recorded(folder):
        yield


@contextmanager
def _recorded(folder: KerasRunFolder) -> Iterator[None]:
    try:
        yield
    except BaseException as error:
        stage = folder.read_json("status.json").get("stage", "setup")
        state = "interrupted" if isinstance(error, InterruptedRunError) else "failed"
        folder.write_status(state, stage, describe(error))
        if folder.last_checkpoint.is_file():
            command = folder.read_config()["command"]
            words = ("-m", "keras_bert", command, "--resume", folder.path)
            error.add_note(f"to resume: {shell_command(sys.executable, *words)}")
        raise
