"""Check overrides that are read from a file, which may come from someone else.

The files are sweep.json and the storage of a study. Their overrides are parsed by Hydra again, so
they must not reach what Hydra builds or runs by itself.
"""

import re
from collections.abc import Iterable, Sequence

from run_folders.sweep_job import SweepError

# Settings of Hydra that only choose or limit: launcher, sweeper, and their plain options.
_ALLOWED = re.compile(r"hydra[./](launcher|sweeper)\b.*|hydra\.sweep\.subdir")
# Options of a launcher that run commands or set the environment of its jobs.
_COMMANDS = re.compile(
    r"hydra\.launcher\.(setup|additional_parameters|ray|python|submitit_folder)\b.*"
)
_ENVIRONMENT = re.compile(r"\$\{\s*oc\.env")


def check_recorded(overrides: Iterable[str], file: str) -> None:
    """Check that overrides from a file set no flag and nothing that Hydra builds or runs.

    Args:
        overrides: The overrides.
        file: The file that they come from, for the message.

    Raises:
        SweepError: If an override does.
    """
    for override in overrides:
        key = override.partition("=")[0].lstrip("+~")
        if override.startswith("-"):
            fault = "is a flag"
        elif key.startswith("hydra") and (
            not _ALLOWED.fullmatch(key) or _COMMANDS.fullmatch(key) or "_target_" in override
        ):
            fault = "is a setting of Hydra that may run code"
        else:
            continue
        msg = (
            f"{file}: {override!r} {fault}, which is not taken from a file; "
            f"remove it there, and set it on the command line if you need it"
        )
        raise SweepError(msg)


def reading_environment(overrides: Sequence[str]) -> list[str]:
    """Return the overrides whose values would be read from environment variables."""
    return [override for override in overrides if _ENVIRONMENT.search(override)]
