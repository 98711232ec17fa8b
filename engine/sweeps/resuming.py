"""Resuming of a sweep: its command line, and removal of secrets from Hydra's record of it."""

import sys
from collections.abc import Sequence
from pathlib import Path

from engine.command_line.quoting import quoted, unquoted
from engine.config.redaction import HIDDEN, hide
from engine.sweeps.recorded_overrides import untrusted
from run_folders.errors import one_line
from run_folders.files import write_text
from run_folders.run_folder import RunFolder
from run_folders.sweep import RECORD, Sweep
from run_folders.sweep_job import SweepError
from run_folders.untrusted import MAX_YAML, read_text

_PREFIX = "sweep.resume="


def resumed_overrides(overrides: Sequence[str], flags: Sequence[str] = ()) -> list[str]:
    """Return the command line that resumes a sweep.

    Args:
        overrides: The arguments of the command line, with `sweep.resume=FOLDER`.
        flags: The flags that name the place of configs.

    Returns:
        `-m`, the sweep's first overrides, the new ones, and the sweep's folder.

    Raises:
        SweepError: If the folder is not a sweep's, or the storage of the study or the place of
            configs is not set again.
    """
    path = _folder(next(text for text in reversed(overrides) if text.startswith(_PREFIX)))
    RunFolder(path).check_entries()  # Hydra writes a file into it
    record = Sweep(path).record
    if "words" not in record:
        msg = (
            f"sweep.resume={path}: this is not the folder of a sweep (it has no {RECORD}); "
            "set a folder such as runs/sweeps/NAME/STAMP"
        )
        raise SweepError(msg)
    _check_flags(path, record.get("flags", []), flags)
    words = record["words"]
    refused = untrusted(word for word in words if HIDDEN not in word)
    for override in refused:
        print(
            f"{one_line(override)} is not taken from {RECORD}, because such an override can run "
            f"code or read the environment; set it again if it is needed",
            file=sys.stderr,
        )
    before = [word for word in words if HIDDEN not in word and word not in refused]
    for override in words:
        if HIDDEN in override:
            key = override.partition("=")[0].lstrip("+")
            if key == "hydra.sweeper.storage" and not any(
                override.startswith(f"{key}=") for override in overrides
            ):
                msg = (
                    f"{key} was not saved because it contains a login; "
                    "set it again to open the study"
                )
                raise SweepError(msg)
            # Printed, as Hydra sets up logging later.
            print(
                f"{one_line(key)} was not saved because it is secret; set it again if it is needed",
                file=sys.stderr,
            )
    now = [
        override
        for override in overrides
        if not override.startswith(_PREFIX) and override not in ("-m", "--multirun")
    ]
    return ["-m", *before, *now, f"hydra.sweep.dir={quoted(path.resolve())}"]


def _folder(override: str) -> Path:
    """Return the folder of `sweep.resume=FOLDER`, which may be in Hydra's quotes."""
    value = override.removeprefix(_PREFIX)
    plain = Path(value).expanduser()
    return plain if plain.is_dir() else Path(unquoted(value)).expanduser()


def _check_flags(path: Path, before: Sequence[str], now: Sequence[str]) -> None:
    """Check that the flags of the sweep's start are set again, as a file may not name them."""
    names = {flag.partition("=")[0] for flag in now}
    for flag in before:
        if flag.partition("=")[0] not in names:
            msg = f"sweep.resume={path}: the sweep began with {flag}; set it again"
            raise SweepError(msg)


def redact_sweep_record(path: Path, secrets: set[str]) -> None:
    """Remove the secrets from the multirun.yaml that Hydra writes into a sweep's folder."""
    file = path / "multirun.yaml"
    if file.is_file():
        text = read_text(file, MAX_YAML)
        hidden = hide(text, secrets)
        if hidden != text:
            write_text(file, hidden)
