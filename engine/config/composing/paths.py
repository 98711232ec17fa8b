"""Folders of configs, and those that a config names. Standard library only."""

import os
import tempfile
from pathlib import Path

from run_folders.own_packages import own_package_folders

_ROOT = Path(__file__).resolve().parents[3]
_INSTALLED = _ROOT / "thaw" / "configs"
# A wheel has the configs inside of the package thaw, a checkout has them beside it.
IS_CHECKOUT = not _INSTALLED.is_dir()
CONFIGS = _ROOT / "configs" if IS_CHECKOUT else _INSTALLED


def cache_folder(stated: str | None) -> Path:
    """Return the folder of stored features.

    Without a home directory it is inside the system's temporary folder.

    Args:
        stated: The folder that the user set. None takes $THAW_CACHE, or `thaw/features` in the
            user's cache folder.
    """
    own = stated or os.environ.get("THAW_CACHE")
    try:
        if own:
            return Path(own).expanduser().resolve()
        base = os.environ.get("XDG_CACHE_HOME") or "~/.cache"
        return (Path(base).expanduser() / "thaw" / "features").resolve()
    except RuntimeError:  # the user of a container may have no home directory
        return Path(tempfile.gettempdir()).resolve() / "thaw" / "features"


def own_config_folders() -> list[Path]:
    """Return the folders `configs` of the own packages and of the working directory.

    Raises:
        OwnPackageError: If a package cannot be found.
    """
    found = [folder / "configs" for folder in [*own_package_folders(), Path.cwd()]]
    unique = dict.fromkeys(folder.resolve() for folder in found if folder.is_dir())
    return [folder for folder in unique if folder != CONFIGS]
