"""What lies in the checkout, so that tests which write into it are found."""

import subprocess
from pathlib import Path

# Of tools, which keep them wherever they are called.
_CACHES = {"__pycache__", ".pytest_cache", ".mypy_cache", ".ruff_cache", "build"}


def listed(root: Path) -> set[str] | None:
    """What `git status` says of changed, untracked and ignored files, without environments and caches of tools.

    Returns:
        Its lines; None where there is no checkout, or no git.
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
    return {line for line in done.stdout.splitlines() if not _is_of_a_tool(root, Path(line[3:]))}


def _is_of_a_tool(root: Path, path: Path) -> bool:
    caches = any(part in _CACHES or part.endswith(".egg-info") for part in path.parts)
    return caches or any(
        (root / part / "pyvenv.cfg").is_file() for part in (*reversed(path.parents), path)
    )
