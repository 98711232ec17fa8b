"""Begin many runs and sweeps at the same moment, and check that each has its own folder.

`python tests/begin_at_once.py --runs 100 --sweeps 10`. Each is a process of the default run with a
few rows and one epoch; a sweep has two jobs. They are begun in groups that fit into the free
memory: the processes of a group wait for one signal, so that many take the same second. pytest does
not collect this file.
"""

import argparse
import sys
import tempfile
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from run_folders.memory import free_memory
from run_folders.run_folder import RunFolder
from run_folders.sweep import Sweep
from tests.processes import servers, start

_PROCESS_BYTES = 400e6  # that a forked run needs for itself
_OVERRIDES = (
    "trainer.accelerator=cpu", "trainer.max_epochs=1", "data.rows={train: 64, val: 16, test: 16}",
    "model.backbone.num_hidden_layers=1", "head=linear",
)  # fmt: skip


def begin(signal: str, *overrides: str) -> None:
    """Wait for a file, and then run `train.py`."""
    import train

    while not Path(signal).exists():
        time.sleep(0.001)
    sys.argv = ["train.py", *overrides]
    sys.exit(train.main())


def run_group(place: Path, commands: list[tuple[str, ...]]) -> list[str]:
    """Begin processes at the same moment, and return the errors of those that fail."""
    from tests.begin_at_once import begin as target  # by name, for the process server

    signal = Path(tempfile.mkdtemp(dir=place)) / "begin"
    started = [
        start(signal, *command, *_OVERRIDES, program=target, cwd=place) for command in commands
    ]
    signal.touch()
    errors = [process.communicate()[1] for process in started]
    return [err for process, err in zip(started, errors, strict=True) if process.returncode]


def faults(place: Path, runs: int, sweeps: int) -> list[str]:
    """Return what is wrong with the folders."""
    found = []
    folders = [RunFolder(path) for path in (place / "runs" / "sample_text").glob("*")]
    begun = [Sweep(path) for path in (place / "runs" / "sweeps").glob("*/*")]
    for name, wanted, paths in (
        ("runs", runs, [folder.path for folder in folders]),
        ("sweeps", sweeps, [sweep.path for sweep in begun]),
    ):
        seconds = {path.name[: len("2026-01-01_00-00-00")] for path in paths}
        print(f"{wanted} {name}: {len(paths)} folders, begun in {len(seconds)} different seconds")
        if len(paths) != wanted:
            found.append(f"{len(paths)} folders of {wanted} {name}")
    jobs = [RunFolder(path) for sweep in begun for path in sweep.path.glob("[0-9]*")]
    if len(jobs) != 2 * sweeps:
        found.append(f"{len(jobs)} folders of {2 * sweeps} jobs")
    found += [f"{job.path}: {job.state}" for job in [*folders, *jobs] if job.state != "finished"]
    return found


def main() -> int:
    """Begin the runs and sweeps, and return 1 if a folder is missing, shared or unfinished."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--runs", type=int, default=100)
    parser.add_argument("--sweeps", type=int, default=10)
    fitting = max(1, int(free_memory() / 2 / _PROCESS_BYTES))
    parser.add_argument("--at-once", type=int, default=fitting, help="processes of a group")
    arguments = parser.parse_args()
    commands = [*[()] * arguments.runs, *[("-m", "seed=1,2")] * arguments.sweeps]
    with tempfile.TemporaryDirectory() as name, servers():
        place, found = Path(name), []
        for first in range(0, len(commands), arguments.at_once):
            found += run_group(place, commands[first : first + arguments.at_once])
        found += faults(place, arguments.runs, arguments.sweeps)
    print("\n".join(found) or "each run and each sweep has its own folder")
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main())
