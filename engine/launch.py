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

from engine.command_line import CONFIGS
from engine.outcome import report_failure
from engine.run_folder import RunFolder

_LONGEST_NAME = 100


def register_resolvers() -> None:
    """Make known what a run and a sweep are called: for the experiment or experiments, else for the dataset."""
    OmegaConf.register_new_resolver("thaw.name", lambda experiment, data: experiment or data, replace=True)
    OmegaConf.register_new_resolver("thaw.sweep_name", _sweep_name, replace=True)
    OmegaConf.register_new_resolver("thaw.run_name", _run_name, replace=True)
    OmegaConf.register_new_resolver("thaw.group", _group, replace=True)


def _sweep_name(default: str) -> str:
    """Name a sweep for all its experiments, joined by +, else for its datasets.

    Told from the command line and not from the config: the name has to be the same in every job.
    """
    for group in ("experiment=", "data="):
        for word in sys.argv[1:]:
            if word.startswith(group):
                return word.removeprefix(group).replace(",", "+")[:_LONGEST_NAME]
    return default


def _run_name(name: str, mode: object, folder: str) -> str:
    """What dashboards call a run: its name and when it began, in a sweep also which job it is."""
    return " ".join([name, *Path(folder).parts[-2 if _sweeping(mode) else -1 :]])


def _group(mode: object, folder: str) -> str | None:
    """What dashboards group the jobs of a sweep by: what it is called and when it began. None outside of a sweep."""
    return "/".join(Path(folder).parts[-3:-1]) if _sweeping(mode) else None


def _sweeping(mode: object) -> bool:
    return str(mode).rpartition(".")[2] == RunMode.MULTIRUN.name


def launch() -> int:
    """Run what the command line asks for.

    Returns:
        The exit code.
    """
    register_resolvers()
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
    os.environ["HYDRA_FULL_ERROR"] = "1"
    try:
        yield
    finally:
        if before is None:
            del os.environ["HYDRA_FULL_ERROR"]
        else:
            os.environ["HYDRA_FULL_ERROR"] = before


def _job(failures: list[Exception], cfg: DictConfig) -> float | None:
    """One job; a single run keeps its error for `launch`, a sweep gives it to Hydra's launcher."""
    sweeping = HydraConfig.get().mode is RunMode.MULTIRUN
    try:
        folder = RunFolder(Path(HydraConfig.get().runtime.output_dir))
        if not cfg.plan:
            folder.begin(cfg.ckpt_path)
        from engine.recording import redact_sweep_record
        from engine.run import run  # imports torch: the status file is there before

        if sweeping:
            redact_sweep_record(cfg)
        return run(cfg, folder)
    except Exception as error:
        if sweeping:
            raise
        failures.append(error)
        return None
