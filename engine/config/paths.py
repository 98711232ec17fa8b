"""Folders of configs, and those that a config names. Standard library only."""

import os
import tempfile
from pathlib import Path

CONFIGS = Path(__file__).resolve().parents[2] / "configs"


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
