"""The start and the end of a sweep.

A Hydra callback records the sweep's overrides at the start. At the end, also after an error, the
jobs are listed, written to files and plotted.
"""

import logging
import sys
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.experimental.callback import Callback
from omegaconf import DictConfig, OmegaConf
from rich.console import Console
from rich.table import Table

from engine.command_line.commands import resume_sweep_command
from engine.command_line.flags import flags_of
from engine.command_line.hydra_settings import check_hydra_settings
from engine.command_line.quoting import settled
from engine.config.redaction import hide, secret_values
from engine.processes import ranks
from engine.processes.terminal import console
from engine.sweeps.folders import choose_folder
from engine.sweeps.resuming import redact_sweep_record
from run_folders.errors import one_line, printable
from run_folders.kinds import metric_text, shown_in
from run_folders.run_folder import RunFolder
from run_folders.sweep import PAGE, TABLE, Sweep, common_keys, failures
from run_folders.sweep_job import Job, SweepError
from run_folders.untrusted import DamagedFileError

log = logging.getLogger(__name__)

# Prefixes of overrides that are no part of the sweep.
_START_KEYS = ("hydra.mode=", "hydra.sweep.dir=")


@dataclass
class _Begun:
    """The sweep that has started in this process.

    Attributes:
        resumes: Whether the command line resumes a sweep.
        sweep: The sweep; None before its start.
        record: The content of its sweep.json before its start.
        versions: Its jobs before its start; see `Sweep.versions`.
        secrets: The secrets in its overrides.
        flags: The flags that it was started with.
        lock: Keeps other processes from running the same sweep.
    """

    resumes: bool
    sweep: Sweep | None = None
    record: dict[str, Any] = field(default_factory=dict)
    versions: dict[Path, int] = field(default_factory=dict)
    secrets: set[str] = field(default_factory=set)
    flags: list[str] = field(default_factory=list)
    lock: ExitStack = field(default_factory=ExitStack)


_begun = _Begun(resumes=False)


class _CallbackError(BaseException):
    """Carries an error of the callback; of an `Exception`, Hydra would make a warning."""

    def __init__(self, error: Exception) -> None:
        super().__init__(error)
        self.error = error


@contextmanager
def _raising() -> Iterator[None]:
    try:
        yield
    except Exception as error:
        raise _CallbackError(error) from error


class SweepCallback(Callback):
    """Hydra callback that chooses the folder, and records the start of a sweep."""

    def on_run_start(self, config: DictConfig, **kwargs: Any) -> None:  # noqa: ANN401, ARG002 - Hydra's signature
        """Choose the run folder."""
        with _raising():
            check_hydra_settings(config, sweeps=False, child=ranks.is_child())
            choose_folder(config, "hydra.run.dir")

    def on_multirun_start(self, config: DictConfig, **kwargs: Any) -> None:  # noqa: ANN401, ARG002 - Hydra's signature
        """Choose the sweep's folder, and record the sweep's overrides in it, without secrets."""
        with _raising():
            ranks.check_can_sweep()
            check_hydra_settings(config, sweeps=True)
            choose_folder(config, "hydra.sweep.dir")
            _begin(config)


def _begin(config: DictConfig) -> None:
    sweep = Sweep(Path(config.hydra.sweep.dir).resolve())
    _begun.lock.enter_context(RunFolder(sweep.path).locked())
    if not _begun.resumes:
        sweep.check_unused()
    of_hydra: Any = OmegaConf.to_container(config.hydra.overrides.hydra, resolve=False)
    of_task: Any = OmegaConf.to_container(config.hydra.overrides.task, resolve=False)
    overrides = [
        *(text for text in map(str, of_hydra) if not text.startswith(_START_KEYS)),
        *settled(map(str, of_task)),
    ]
    _begun.secrets = _secrets_in(overrides)
    _begun.flags = flags_of(config.hydra)
    _begun.record, _begun.versions = sweep.record, sweep.versions()
    sweep.begin([hide(override, _begun.secrets) for override in overrides], _begun.flags)
    _begun.sweep = sweep


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
def reporting_sweep(*, resumes: bool) -> Iterator[None]:
    """Write and print the results of a sweep that starts inside, also where it ends with an error.

    Args:
        resumes: Whether the sweep was begun before.

    Raises:
        SweepError: If the sweep cannot start, or jobs of it failed.
    """
    global _begun
    _begun = _Begun(resumes)
    with _begun.lock:
        try:
            yield
        except _CallbackError as carrier:
            raise carrier.error from None
        except BaseException:
            with suppress(SweepError):  # the first error is the one to report
                _end_sweep(ended=False)
            raise
        _end_sweep(ended=True)


def _end_sweep(*, ended: bool) -> None:
    sweep = _begun.sweep
    if sweep is None:
        return
    redact_sweep_record(sweep.path, _begun.secrets)
    # Jobs that submitit has queued start later and need the sweep's folder.
    keep = not ended and (sweep.path / ".submitit").exists()
    nothing_ran = sweep.versions() == _begun.versions
    jobs = sweep.end(_begun.record if nothing_ran else None, keep=keep)
    if not jobs:
        return
    shown = console(width=None if sys.stdout.isatty() else 160)
    shown.print(_jobs_table(jobs))
    shown.print(f"sweep: {one_line(sweep.path / TABLE)}", highlight=False, soft_wrap=True)
    failed = "\n  ".join(filter(None, (failures(jobs), _write_page(sweep, shown))))
    if ended:
        _remove_pickles(sweep.path)
    if failed:
        shown.print(
            f"to resume: {printable(resume_sweep_command(sweep.path, _begun.flags))}",
            highlight=False,
            soft_wrap=True,
        )
        raise SweepError.from_text(failed)


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
    shown.print(f"page: {one_line(sweep.path / PAGE)}", highlight=False, soft_wrap=True)
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
        values = [
            metric_text(job.metrics[name], name) if name in job.metrics else "-" for name in metrics
        ]
        seconds = "-" if job.seconds is None else f"{job.seconds:.1f}"
        label = one_line(job.label(common))
        table.add_row(job.name, one_line(job.state), label, *values, seconds)
    return table
