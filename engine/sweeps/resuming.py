"""A sweep that goes on: its command line, and the record that Hydra wrote without secrets."""

import sys
from collections.abc import Sequence
from pathlib import Path

from engine.config.redaction import HIDDEN, hide
from run_folders.run_folder import write_text
from run_folders.sweep import RECORD, Sweep
from run_folders.sweep_job import SweepError


def resumed_overrides(overrides: Sequence[str]) -> list[str]:
    """The command line of a sweep that goes on.

    Args:
        overrides: What was typed, with `sweep.resume=FOLDER`.

    Returns:
        What was typed when the sweep began, what was typed now, and the folder.

    Raises:
        SweepError: If the folder is no sweep's, or its study cannot be found without an override
            that is missing.
    """
    prefix = "sweep.resume="
    path = Path(
        next(
            override.removeprefix(prefix)
            for override in reversed(overrides)
            if override.startswith(prefix)
        )
    ).expanduser()
    record = Sweep(path).record
    if "words" not in record:
        msg = f"sweep.resume={path}: no sweep is there (it has no {RECORD}); give a folder such as runs/sweeps/NAME/STAMP"
        raise SweepError(msg)
    before = [override for override in record["words"] if HIDDEN not in override]
    for override in record["words"]:
        if HIDDEN in override:
            key = override.partition("=")[0].lstrip("+")
            if key == "hydra.sweeper.storage" and not any(
                override.startswith(f"{key}=") for override in overrides
            ):
                msg = f"{key} was not kept, as it has a login in it; give it again: the study is there"
                raise SweepError(msg)
            print(
                f"{key} was not kept, as it is secret; give it again where it is needed",
                file=sys.stderr,
            )  # Hydra logs later
    now = [
        override
        for override in overrides
        if not override.startswith(prefix) and override not in ("-m", "--multirun")
    ]
    return ["-m", *before, *now, f"hydra.sweep.dir={path.resolve()}"]


def redact_sweep_record(path: Path, secrets: set[str]) -> None:
    """Take the secrets out of the multirun.yaml that Hydra writes into a sweep's folder."""
    file = path / "multirun.yaml"
    if file.is_file():
        text = file.read_text(encoding="utf-8")
        hidden = hide(text, secrets)
        if hidden != text:
            write_text(file, hidden)
