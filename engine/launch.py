"""Compose with Hydra, run, and turn every end of a run into one line and an exit code."""

import os
import sys
import traceback
from functools import partial
from pathlib import Path

import hydra
from hydra.core.hydra_config import HydraConfig
from hydra.errors import HydraException
from hydra.types import RunMode
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from engine.command_line import CONFIGS
from engine.interrupts import InterruptedRunError, signals_raise
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
    # Hydra then raises instead of printing its own traceback and exiting.
    wants_traceback = os.environ.get("HYDRA_FULL_ERROR") == "1"
    os.environ["HYDRA_FULL_ERROR"] = "1"
    failures: list[Exception] = []
    job = hydra.main(version_base="1.3", config_path=str(CONFIGS), config_name="train")(partial(_job, failures))
    try:
        with signals_raise():
            job()
        if failures:
            raise failures[0]
    except InterruptedRunError as error:
        print(f"error: {error}", file=sys.stderr)
        return error.exit_code
    except Exception as error:
        if wants_traceback or not is_for_the_user(error):
            traceback.print_exception(error)
        print(f"error: {describe(error)}", file=sys.stderr)
        return 1
    finally:
        if not wants_traceback:
            del os.environ["HYDRA_FULL_ERROR"]
    return 0


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


def is_for_the_user(error: Exception) -> bool:
    """Whether the error's own words say what to do, so that a traceback would only hide them."""
    return isinstance(error, HydraException | OmegaConfBaseException) or getattr(error, "is_for_the_user", False)


def describe(error: BaseException) -> str:
    """The error in as few lines as it has to say."""
    if isinstance(error, HydraException | OmegaConfBaseException):
        lines = [*str(error).splitlines(), *str(error.__cause__ or "").splitlines()]
        return "; ".join(dict.fromkeys(line.strip() for line in lines if line.strip()))
    text = str(error).strip() or type(error).__name__
    if getattr(error, "is_for_the_user", False):
        return text
    return f"{type(error).__name__}: {' '.join(text.split())}"
