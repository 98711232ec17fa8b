"""Compose the config with Hydra and run it, from the command line or from Python.

From the command line, every end of a run is one line and an exit code.
"""

import gc
import logging
import os
import signal
import sys
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, nullcontext
from functools import partial
from pathlib import Path

import hydra
from hydra.core.hydra_config import HydraConfig
from hydra.types import RunMode
from omegaconf import DictConfig

from engine.command_line.explaining import explaining_errors
from engine.command_line.flags import CONFIG_NAME, split_flags
from engine.command_line.hydra_settings import check_overrides_from_python, check_typed_overrides
from engine.config.composing.composition import hydra_app, typed_overrides
from engine.config.composing.paths import CONFIGS
from engine.config.errors import ConfigError
from engine.config.own_configs import check_own_configs
from engine.config.redaction import hide, secret_values
from engine.cost.cost import print_sum
from engine.old_names import (
    check_overrides,
    translate_override,
    translate_overrides,
)
from engine.processes import launching, ranks
from engine.processes.determinism import keeping_determinism
from engine.processes.outcome import describe, errors_for_python, report_failure
from engine.processes.signals import InterruptedRunError, signals_raise
from engine.processes.supervisor import FULL_ERROR, end_with_supervisor
from engine.processes.terminal import console, logging_run
from engine.sweeps.folders import check_job_folder
from engine.sweeps.lifecycle import reporting_sweep
from engine.sweeps.names import register_resolvers
from engine.sweeps.resuming import redact_sweep_record, resumed_overrides
from run_folders.own_packages import VARIABLE, OwnPackageError
from run_folders.run_folder import RunFolder
from run_folders.sweep_job import check_own_folder, prepare_job, record_error

log = logging.getLogger(__name__)

_one_at_a_time = threading.RLock()


def launch(arguments: Sequence[str]) -> int:
    """Run the job or the sweep of a command line.

    Args:
        arguments: The words of the command line, without the program.

    Returns:
        The exit code.
    """
    end_with_supervisor()
    # Errors of the job are collected and raised after Hydra has returned. If `_job` raised them,
    # Hydra would print an extra line, and `explaining_errors` could blame the overrides.
    failures: list[Exception] = []
    job = hydra.main(version_base="1.3", config_path=str(CONFIGS), config_name=CONFIG_NAME)(
        partial(_job, failures)
    )
    with report_failure() as outcome:
        flags, typed = split_flags(arguments)
        check_overrides(typed)
        typed = _translate_typed(typed)
        resumes = any(override.startswith("sweep.resume=") for override in typed)
        if resumes:
            typed = resumed_overrides(typed, flags)
            check_overrides(typed)
            typed = translate_overrides(typed)
        check_typed_overrides(typed)
        register_resolvers(typed)
        sys.argv[1:] = [*flags, *typed]  # Hydra reads it
        check_own_configs()
        with explaining_errors(typed), _raising_hydra(), reporting_sweep(resumes=resumes):
            job()
        print_sum(console())
        if failures:
            raise failures[0]
    return outcome.code


def train(overrides: Sequence[str]) -> Path:
    """Run one job in this process, as `launch` does, and raise its errors.

    It may be called again, in any thread, and in a notebook. Calls in several threads wait for each
    other, because Hydra and the random seeds are global. `sys.argv` is not read.

    Args:
        overrides: Overrides as on the command line, without flags.

    Returns:
        The run folder.

    Raises:
        UserError: If the user can mend the failure; the message is one line.
        KeyboardInterrupt: On Ctrl-C.
        SystemExit: On SIGTERM.
    """
    failures: list[Exception] = []
    folders: list[Path] = []

    def job(cfg: DictConfig) -> None:
        folders.append(Path(HydraConfig.get().runtime.output_dir))
        with logging_run(HydraConfig.get().job_logging), keeping_determinism():
            _job(failures, cfg)

    with _one_at_a_time, errors_for_python():
        check_overrides_from_python(overrides)
        check_overrides(overrides)
        typed = _translate_typed(list(overrides))
        check_typed_overrides(typed)
        register_resolvers(typed)
        check_own_configs()
        with explaining_errors(typed), reporting_sweep(resumes=False), hydra_app() as app:
            app.run(CONFIG_NAME, job, typed, with_log_configuration=False)
        if failures:
            raise failures[0]
    return folders[0]


def _translate_typed(typed: list[str]) -> list[str]:
    """Return the command line without overrides of version 0.1, and name each of them."""
    translated = translate_overrides(typed)
    for override in typed if translated != typed else ():
        now = translate_override(override)
        if now != [override]:  # printed, as Hydra sets up logging later
            print(f"{override}: since version 0.2 this is {' '.join(now)}", file=sys.stderr)
    return translated


@contextmanager
def _raising_hydra() -> Iterator[None]:
    """Make Hydra raise errors instead of printing a traceback and exiting."""
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


@contextmanager
def garbage_collection_disabled() -> Iterator[None]:
    """Disable garbage collection while modules are imported.

    Imports create no garbage, and collection takes a fifth of their time.
    """
    was = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was:
            gc.enable()


def _job(failures: list[Exception], cfg: DictConfig) -> float | None:
    """Run one job of Hydra; the error of a single run is appended to `failures`."""
    folder = RunFolder(Path(HydraConfig.get().runtime.output_dir), writes=ranks.is_rank_zero())
    if HydraConfig.get().mode is RunMode.MULTIRUN:
        return _job_of_sweep(cfg, folder)
    try:
        return _run(cfg, folder)
    except Exception as error:
        failures.append(error)
        return None


def _run(cfg: DictConfig, folder: RunFolder, ckpt_path: str | None = None) -> float | None:
    if VARIABLE in HydraConfig.get().job.env_set:
        msg = f"hydra.job.env_set: a config cannot set {VARIABLE}; set it in the environment"
        raise OwnPackageError(msg)
    if not isinstance(cfg.ckpt_path, str | None):
        msg = f"ckpt_path: received {cfg.ckpt_path!r}; last, or the path of a checkpoint, is needed"
        raise ConfigError(msg)
    alone = cfg.plan or not folder.writes or ranks.is_child()
    with nullcontext() if alone else folder.locked():
        if not cfg.plan:
            ckpt_path = launching.begin(folder, ckpt_path or cfg.ckpt_path)
        try:
            if launching.needs_launch(cfg):
                return launching.run_in_processes(cfg, folder, ckpt_path)
            with garbage_collection_disabled():
                from engine.run import run  # imports torch: the status file is there before

            return run(cfg, folder, ckpt_path)
        except InterruptedRunError as error:
            # The run itself does not record an interrupt before its start or after its end.
            if not cfg.plan and folder.writes:
                folder.write_end_if_missing("interrupted", str(error))
            raise


def _job_of_sweep(cfg: DictConfig, folder: RunFolder) -> float | None:
    """Run one job of a sweep; its error is written to its folder, so that the next job starts."""
    secrets = secret_values(cfg)
    hydra_cfg = HydraConfig.get()
    sweep = Path(hydra_cfg.sweep.dir).resolve()
    check_job_folder(folder.path, sweep)
    name = folder.path.relative_to(sweep)
    overrides = [hide(override, secrets) for override in typed_overrides()]
    check_own_folder(folder, overrides, hydra_cfg.job.num)
    redact_sweep_record(sweep, secrets)
    # In a process of a launcher, nothing else turns a signal into an error that is recorded.
    unhandled = signal.getsignal(signal.SIGTERM) is signal.SIG_DFL
    try:
        with signals_raise() if unhandled else nullcontext():
            if cfg.plan:
                return _run(cfg, folder)
            start_from = prepare_job(folder, overrides, hydra_cfg.job.num, translate_overrides)
            if start_from != "done":
                return _run(cfg, folder, start_from)
            state = folder.read_json("status.json")["state"]
            log.info("job %s is %s already", name, state)
    except Exception as error:  # an interrupt is none, and ends the sweep
        pruned = folder.state == "pruned"
        message = describe(error)
        if not cfg.plan and folder.writes:
            record_error(folder, message)
        log.log(logging.INFO if pruned else logging.ERROR, "job %s: %s", name, message)
    return None
