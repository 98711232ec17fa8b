"""Checks that Thaw can run here: the system, and its own packages. Standard library only."""

import sys
from importlib.util import find_spec
from pathlib import Path

# Packages with names that a folder of a user may have too.
_PACKAGES = (
    "run_folders",
    "engine",
    "datamodules",
    "lightning_modules",
    "reports",
    "keras_bert",
)


def installation_fault() -> str:
    """Return why Thaw cannot run here, on one line; empty if it can."""
    if sys.platform == "win32":
        return (
            "Thaw does not run on Windows, which lacks the signals and the locks of folders that "
            "it needs; use the Windows Subsystem for Linux (WSL)"
        )
    ours = Path(__file__).resolve().parents[1]
    for name in _PACKAGES:
        found = _place(name)
        if found is None:
            return f"{ours} has no package {name}; install Thaw again"
        if found.parent != ours:
            return (
                f"{found} hides Thaw's package {name} ({ours / name}); rename it, or start Python "
                "in another folder"
            )
    return ""


def _place(name: str) -> Path | None:
    """Return the folder or the file that Python imports under a name; None if there is none."""
    try:
        spec = find_spec(name)
    except ValueError:  # a module that is imported already and has no spec
        spec = None
    if spec is None:
        return None
    folders = list(spec.submodule_search_locations or ())
    place = folders[0] if folders else spec.origin
    return None if place is None else Path(place).resolve()
