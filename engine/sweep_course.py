"""The course of a sweep: Hydra says when one begins; however it ends, its jobs are listed, written down and drawn."""

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

from engine.redaction import hide, secret_values
from engine.sweep import PAGE, TABLE, Job, Sweep, SweepError, common_keys, failures

log = logging.getLogger(__name__)

_SHOWN = ("acc", "f1_macro", "miou")
_begun: list[Sweep] = []


class SweepCourse(Callback):
    """Tells this process of the sweep that it begins."""

    def on_multirun_start(self, config: DictConfig, **kwargs: Any) -> None:  # noqa: ANN401, ARG002 - Hydra's signature
        """Write down what was asked for."""
        words = [*config.hydra.overrides.hydra, *config.hydra.overrides.task]
        secrets = _secrets_in(words)
        sweep = Sweep(Path(config.hydra.sweep.dir).resolve())
        sweep.begin(hide(word, secrets) for word in words if not word.startswith(("hydra.mode=", "hydra.sweep.dir=")))
        _begun[:] = [sweep]


def _secrets_in(words: Sequence[str]) -> set[str]:
    """The secrets among the command line's words, which no config has been composed of yet."""
    found: set[str] = set()
    for override in OverridesParser.create().parse_overrides(list(words)):
        if not override.is_sweep_override() and not override.is_delete():
            found |= secret_values(OmegaConf.create({override.key_or_group.rpartition(".")[2]: override.value()}))
    return found


@contextmanager
def sweep_ended() -> Iterator[None]:
    """Write down and show what a sweep came to, where one began inside, however it ended.

    Raises:
        SweepError: If jobs of it failed.
    """
    _begun.clear()
    try:
        yield
    except BaseException:
        with suppress(SweepError):  # the first error is the one that is told
            _end_sweep()
        raise
    _end_sweep()


def _end_sweep() -> None:
    if not _begun:
        return
    sweep = _begun.pop()
    jobs = sweep.end()
    if not jobs:
        return
    console = Console(width=None if sys.stdout.isatty() else 160)
    console.print(_shown(jobs))
    console.print(f"sweep: {sweep.path / TABLE}", highlight=False, soft_wrap=True)
    _draw(sweep, console)
    failed = failures(jobs)
    if failed or any(job.state == "interrupted" for job in jobs):
        console.print(f"to go on: python train.py -m sweep.resume={sweep.path}", highlight=False, soft_wrap=True)
    if failed:
        raise SweepError(failed)


def _draw(sweep: Sweep, console: Console) -> None:
    from reports.sweep import write_sweep_page  # matplotlib takes its time

    write_sweep_page(sweep.path)
    console.print(f"page: {sweep.path / PAGE}", highlight=False, soft_wrap=True)


def _shown(jobs: Sequence[Job]) -> Table:
    common = common_keys(jobs)
    figures = list(dict.fromkeys([*(job.monitor for job in jobs), *(f"test/{name}" for name in _SHOWN)]))
    figures = [name for name in figures if any(name in job.figures for job in jobs)]
    table = Table("job", "state", "overrides", *figures, "seconds", title=f"{len(jobs)} jobs")
    for job in jobs:
        values = [f"{job.figures[name]:.4f}" if name in job.figures else "-" for name in figures]
        seconds = "-" if job.seconds is None else f"{job.seconds:.1f}"
        table.add_row(job.name, job.state, job.words(common), *values, seconds)
    return table
