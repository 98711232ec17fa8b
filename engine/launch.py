"""Compose with Hydra and run, so that every end of a run is one line and an exit code."""

import os
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


def register_resolvers() -> None:
    """Make `${thaw.name:experiment,data}` known: a run is named for its experiment, else for its dataset."""
    OmegaConf.register_new_resolver("thaw.name", lambda experiment, data: experiment or data, replace=True)


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
    try:
        folder = RunFolder(Path(HydraConfig.get().runtime.output_dir))
        if not cfg.plan:
            folder.begin(resuming=cfg.ckpt_path is not None)
        from engine.run import run  # imports torch: the status file is there before

        return run(cfg, folder)
    except Exception as error:
        if HydraConfig.get().mode is RunMode.MULTIRUN:
            raise
        failures.append(error)
        return None
