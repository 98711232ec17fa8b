"""Open the run folder of a training: a new one, or that of a run to resume."""

import shlex
from dataclasses import fields
from pathlib import Path
from typing import Any, TypeVar

from keras_bert.errors import KerasBertError
from keras_bert.run_folder import KerasRunFolder
from keras_bert.settings import TrainingSettings
from run_folders.files import make_folder

Settings = TypeVar("Settings", bound=TrainingSettings)


def open_run(settings: Settings, command: str, path: Path) -> tuple[Settings, KerasRunFolder]:
    """Start a new run folder, or open the folder of the run to resume.

    Args:
        settings: The options of the command. If `resume` is set, all others are ignored.
        command: pretrain or finetune.
        path: The folder of a new run; if `out` is not set, the next free name is taken.

    Returns:
        The settings and the folder. A resumed run uses its saved settings.

    Raises:
        KerasBertError: If the new folder already contains a run, or if the folder to resume does
            not contain an unfinished run of this command.
    """
    if not settings.resume:
        folder = KerasRunFolder(path if settings.out else make_folder(path))
        # A run that ended before its first checkpoint may be overwritten.
        if folder.last_checkpoint.exists():
            finished = folder.read_json("status.json").get("state") == "finished"
            resume = "" if finished else f"give --resume {_word(folder)} to resume it, or "
            msg = f"{folder.path} holds a run already: {resume}give another --out"
            raise KerasBertError(msg)
        if folder.is_locked:
            msg = (
                f"{folder.path}: a run is still going on in it; wait for it, or give another --out"
            )
            raise KerasBertError(msg)
        folder.write_status("running", "setup")
        return settings, folder
    folder = KerasRunFolder(Path(settings.resume))
    config = folder.read_config()
    if config["command"] != command:
        msg = (
            f"{folder.path} is a run of {config['command']}: resume it with "
            f"python -m keras_bert {config['command']} --resume {_word(folder)}"
        )
        raise KerasBertError(msg)
    if folder.read_json("status.json").get("state") == "finished":
        msg = f"{folder.path} is finished: there is nothing to resume"
        raise KerasBertError(msg)
    known = {each.name for each in fields(settings)}
    values: dict[str, Any] = {
        k: tuple(v) if isinstance(v, list) else v for k, v in config.items() if k in known
    }
    return type(settings)(**{**values, "resume": str(folder.path)}), folder


def _word(folder: KerasRunFolder) -> str:
    """Return the folder's path as one word of a shell."""
    return shlex.quote(str(folder.path))
