"""Lists untracked, changed and ignored files of the checkout, to find tests that write into it."""

import subprocess
from pathlib import Path

# Tools create these wherever they are called.
_CACHES = {"__pycache__", ".pytest_cache", ".mypy_cache", ".ruff_cache", "build"}


def listed(root: Path) -> set[str] | None:
    """Changed, untracked and ignored files, without virtual environments and caches of tools.

    Returns:
        Lines of `git status`; None if there is no checkout or no git.
    """
    command = [
        "git",
        "-c",
        "core.quotePath=false",
        "status",
        "--porcelain",
        "--ignored",
        "--untracked-files=all",
    ]
    try:
        done = subprocess.run(command, cwd=root, capture_output=True, text=True, check=True)
    except (OSError, subprocess.CalledProcessError):
        return None
    return {
        line for line in done.stdout.splitlines() if not _belongs_to_a_tool(root, Path(line[3:]))
    }


def _belongs_to_a_tool(root: Path, path: Path) -> bool:
    caches = any(part in _CACHES or part.endswith(".egg-info") for part in path.parts)
    return caches or any(
        (root / part / "pyvenv.cfg").is_file() for part in (*reversed(path.parents), path)
    )
