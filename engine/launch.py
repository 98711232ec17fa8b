"""Compose with Hydra and run, so that every end of a run is one line and an exit code."""

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path

import hydra
from hydra.core.hydra_config import HydraConfig
from hydra.types import RunMode
from omegaconf import DictConfig, OmegaConf

from engine import processes, ranks
from engine.command_line import CONFIGS
from engine.outcome import report_failure
from engine.run_folder import RunFolder
from engine.supervisor import FULL_ERROR, end_with_supervisor

_LONGEST_NAME = 100


def register_resolvers() -> None:
    """Make known what a run and a sweep are called: for the experiment or experiments, else for the dataset."""
    OmegaConf.register_new_resolver("thaw.name", lambda experiment, data: experiment or data, replace=True)
    OmegaConf.register_new_resolver("thaw.sweep_name", _sweep_name, replace=True)
    OmegaConf.register_new_resolver("thaw.stamp", ranks.stamp, replace=True, use_cache=True)
    OmegaConf.register_new_resolver("thaw.log", ranks.log_name, replace=True)


def _sweep_name(default: str) -> str:
    """Name a sweep for all its experiments, joined by +, else for its datasets.

    Told from the command line and not from the config: the name has to be the same in every job.
    """
    for group in ("experiment=", "data="):
        for word in sys.argv[1:]:
            if word.startswith(group):
                return word.removeprefix(group).replace(",", "+")[:_LONGEST_NAME]
    return default


def launch() -> int:
    """Run what the command line asks for.

    Returns:
        The exit code.
    """
    register_resolvers()
    end_with_supervisor()
    failures: list[Exception] = []
    job = hydra.main(version_base="1.3", config_path=str(CONFIGS), config_name="train")(partial(_job, failures))
    with report_failure() as outcome:
        with _raising_hydra():
            job()
        if failures:
            raise failures[0]
    return outcome.code


@contextmanager
def _raising_hydra() -> Iterator[None]:
    """Have Hydra raise what goes wrong instead of printing a traceback and exiting."""
    before = os.environ.get("HYDRA_FULL_ERROR")
    os.environ["HYDRA_FULL_ERROR"], os.environ[FULL_ERROR] = "1", before or "0"
    try:
        yield
    finally:
        del os.environ[FULL_ERROR]
        if before is None:
            del os.environ["HYDRA_FULL_ERROR"]
        else:
            os.environ["HYDRA_FULL_ERROR"] = before


def _job(failures: list[Exception], cfg: DictConfig) -> float | None:
    """One job; a single run keeps its error for `launch`, a sweep gives it to Hydra's launcher."""
    sweeping = HydraConfig.get().mode is RunMode.MULTIRUN
    try:
        folder = RunFolder(Path(HydraConfig.get().runtime.output_dir), writes=ranks.is_first())
        if not cfg.plan:
            processes.begin(cfg, folder)
        from engine.recording import redact_sweep_record
        from engine.run import run  # imports torch: the status file is there before

        if sweeping:
            redact_sweep_record(cfg)
        return processes.run_in_processes(cfg, folder) if processes.needed(cfg) else run(cfg, folder)
    except Exception as error:
        if sweeping:
            raise
        failures.append(error)
        return None
