"""Packages outside Thaw whose classes and configs may be named. Standard library only.

A package is named by its installation or by the environment, never by a config.
"""

import os
from functools import cache
from importlib.metadata import EntryPoints, entry_points
from importlib.util import find_spec
from pathlib import Path

from run_folders.errors import UserError

ENTRY_POINTS, VARIABLE = "thaw.components", "THAW_COMPONENTS"


class OwnPackageError(UserError, ImportError):
    """An own package that cannot be found."""


@cache
def _entry_points() -> EntryPoints:
    """Return the entry points of Thaw's group. Finding them reads a file of every package."""
    return entry_points(group=ENTRY_POINTS)


def own_packages() -> list[str]:
    """Return the own packages.

    They are installed with an entry point of the group `thaw.components`, or listed in the
    environment variable THAW_COMPONENTS, separated by commas.
    """
    installed = [entry.value.partition(":")[0] for entry in _entry_points()]
    listed = [name.strip() for name in os.environ.get(VARIABLE, "").split(",")]
    return list(dict.fromkeys(name for name in [*installed, *listed] if name))


def own_distributions() -> list[str]:
    """Return the names of the installed distributions that have an entry point for Thaw."""
    found = [entry.dist.name for entry in _entry_points() if entry.dist]
    return list(dict.fromkeys(found))


def own_package_folders() -> list[Path]:
    """Return the folder of each own package, without importing it.

    Raises:
        OwnPackageError: If a package cannot be found.
    """
    folders = []
    for name in own_packages():
        try:
            spec = find_spec(name)
        except (ImportError, ValueError):
            spec = None
        if spec is None or not spec.submodule_search_locations:
            msg = (
                f"the own package {name} cannot be found; install it, add its folder to "
                f"PYTHONPATH, or take it out of {VARIABLE}"
            )
            raise OwnPackageError(msg)
        folders += [Path(folder) for folder in spec.submodule_search_locations]
    return folders
