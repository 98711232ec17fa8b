"""The start and the end of a sweep.

A Hydra callback records the sweep's overrides at the start. At the end, also after an error, the
jobs are listed, written to files and plotted.
"""

import logging
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.experimental.callback import Callback
from omegaconf import DictConfig, OmegaConf
from rich.console import Console
from rich.table import Table

from engine.config.redaction import hide, secret_values
from engine.processes.terminal import console, printable
from engine.sweeps.resuming import redact_sweep_record
from run_folders.kinds import metric_text, shown_in
from run_folders.sweep import PAGE, TABLE, Sweep, common_keys, failures
from run_folders.sweep_job import Job, SweepError
from run_folders.untrusted import DamagedFileError

log = logging.getLogger(__name__)

# The sweep that has started in this process, and the secrets in its overrides; at most one entry.
_begun: list[tuple[Sweep, set[str]]] = []


class SweepCallback(Callback):
    """Hydra callback that records the start of a sweep."""

    def on_multirun_start(self, config: DictConfig, **kwargs: Any) -> None:  # noqa: ANN401, ARG002 - Hydra's signature
        """Record the sweep's overrides in its folder, without secrets."""
        overrides = [*config.hydra.overrides.hydra, *config.hydra.overrides.task]
        secrets = _secrets_in(overrides)
        sweep = Sweep(Path(config.hydra.sweep.dir).resolve())
        sweep.begin(
            hide(override, secrets)
            for override in overrides
            if not override.startswith(("hydra.mode=", "hydra.sweep.dir="))
        )
        _begun[:] = [(sweep, secrets)]


def _secrets_in(overrides: Sequence[str]) -> set[str]:
    """Return the secrets among the overrides; no config has been composed from them yet."""
    found: set[str] = set()
    for override in OverridesParser.create().parse_overrides(list(overrides)):
        if not override.is_sweep_override() and not override.is_delete():
            found |= secret_values(
                OmegaConf.create({override.key_or_group.rpartition(".")[2]: override.value()})
            )
    return found


@contextmanager
def reporting_sweep() -> Iterator[None]:
    """Write and print the results of a sweep that starts inside, also where it ends with an error.

    Raises:
        SweepError: If jobs of the sweep failed.
    """
    _begun.clear()
    try:
        yield
    except BaseException:
        with suppress(SweepError):  # the first error is the one to report
            _end_sweep(ended=False)
        raise
    _end_sweep(ended=True)


def _end_sweep(*, ended: bool) -> None:
    if not _begun:
        return
    sweep, secrets = _begun.pop()
    redact_sweep_record(sweep.path, secrets)
    # Jobs that submitit has queued start later and need the sweep's folder.
    jobs = sweep.end(keep=not ended and (sweep.path / ".submitit").exists())
    if not jobs:
        return
    shown = console(width=None if sys.stdout.isatty() else 160)
    shown.print(_jobs_table(jobs))
    shown.print(f"sweep: {printable(sweep.path / TABLE)}", highlight=False, soft_wrap=True)
    failed = "\n".join(filter(None, (failures(jobs), _write_page(sweep, shown))))
    if ended:
        _remove_pickles(sweep.path)
    if failed:
        shown.print(
            f"to resume: python train.py -m sweep.resume={sweep.path}",
            highlight=False,
            soft_wrap=True,
        )
        raise SweepError(failed)


def _remove_pickles(path: Path) -> None:
    """Remove submitit's pickles: they contain config and command line, secrets included."""
    for file in (path / ".submitit").rglob("*.pkl"):
        file.unlink(missing_ok=True)


def _write_page(sweep: Sweep, shown: Console) -> str:
    """Write the page, and return an empty string; else the damage of a job that prevents it."""
    from reports.sweep import write_sweep_page  # imports matplotlib, which is slow

    try:
        write_sweep_page(sweep.path)
    except DamagedFileError as error:
        return f"{PAGE} was not written: {error}"
    shown.print(f"page: {printable(sweep.path / PAGE)}", highlight=False, soft_wrap=True)
    return ""


def _jobs_table(jobs: Sequence[Job]) -> Table:
    common = common_keys(jobs)
    metrics = list(
        dict.fromkeys(
            [
                *(job.monitor for job in jobs),
                *(f"test/{metric.name}" for metric in shown_in("sweep")),
            ]
        )
    )
    metrics = [name for name in metrics if any(name in job.metrics for job in jobs)]
    table = Table("job", "state", "overrides", *metrics, "seconds", title=f"{len(jobs)} jobs")
    for job in jobs:
        values = [metric_text(job.metrics.get(name), name) for name in metrics]
        seconds = "-" if job.seconds is None else f"{job.seconds:.1f}"
        label = printable(job.label(common))
        table.add_row(job.name, printable(job.state), label, *values, seconds)
    return table
