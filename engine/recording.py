"""Record in the run folder how a run ended."""

import logging
import sys
from collections.abc import Iterator
from contextlib import contextmanager

import lightning
from omegaconf import DictConfig

from engine.command_line.commands import resume_run_command
from engine.config.redaction import secret_values
from engine.processes.first_failure import FailedElsewhereError, reporting_first_failure
from engine.processes.outcome import describe, is_user_error
from engine.processes.ranks import add_rank, is_child
from engine.processes.signals import InterruptedRunError
from engine.processes.slurm import requeue_after
from lightning_modules.callbacks.pruning import PrunedRunError
from lightning_modules.loggers.base import Dashboard
from run_folders.errors import brief
from run_folders.run_folder import RunFolder

log = logging.getLogger(__name__)


@contextmanager
def recording_end(cfg: DictConfig, folder: RunFolder) -> Iterator[None]:
    """Record how the run ends, whatever the cause.

    With plan=true the folder is discarded. A run that fails before it resumes keeps its status.
    """
    try:
        with reporting_first_failure(folder, expected_exception=PrunedRunError):
            yield
    except InterruptedRunError as error:
        folder.write_end_if_missing("interrupted", str(error))
        if not folder.is_rung:
            requeue_after(error)
        begun = folder.last_checkpoint.exists() or folder.rungs.is_dir()
        if begun and folder.writes and not folder.is_rung:
            log.error("to resume: %s", resume_run_command(folder.path, secret_values(cfg)))
        raise
    except PrunedRunError as error:
        folder.write_end_if_missing("pruned", str(error))
        raise
    except SystemExit:  # submitit exits when the job is preempted and requeued
        folder.write_end_if_missing("interrupted", "stopped by the launcher")
        raise
    except BaseException as error:
        own = error.__cause__ if isinstance(error, FailedElsewhereError) else error
        if own is not None and not is_user_error(own):
            _log_traceback(own)
        if not is_child():  # the supervisor of a child records which process failed first
            folder.write_end_if_missing("failed", add_rank(describe(error)))
        raise
    finally:
        if cfg.plan:
            folder.discard_unless_run()


def _log_traceback(error: BaseException) -> None:
    """Log a traceback to the log file only; the terminal shows it once, at the very end."""
    record = log.makeRecord(
        log.name,
        logging.ERROR,
        "",
        0,
        "the run failed",
        (),
        (type(error), error, error.__traceback__),
    )
    for handler in logging.getLogger().handlers:
        if isinstance(handler, logging.FileHandler):
            handler.handle(record)


@contextmanager
def closing_loggers(trainer: lightning.Trainer) -> Iterator[None]:
    """Close every logger with the final state of the run.

    A logger that cannot be closed is logged as a warning, and the others are closed all the same.
    """
    code = 1
    for logger in trainer.loggers:
        # Lightning finalizes every logger after the fit and again after the test. That is too
        # early, because the run continues, and it may fail.
        logger.finalize = lambda *_, **__: None  # type: ignore[method-assign]
        # MLflow would upload the last checkpoint, also of a failed run. `publish` uploads the best.
        logger.after_save_checkpoint = lambda *_, **__: None  # type: ignore[method-assign]
    try:
        yield
        code = 0
    except InterruptedRunError as error:
        code = error.exit_code
        raise
    except PrunedRunError:  # pruned by a search, which is not a failure
        code = 0
        raise
    finally:
        for logger in trainer.loggers:
            try:
                if isinstance(logger, Dashboard):
                    logger.close(code)
                else:
                    # The method of the instance was replaced above.
                    type(logger).finalize(logger, "failed" if code else "success")
            except Exception as error:
                log.warning("%s could not be closed: %s", type(logger).__name__, brief(error))
        wandb = sys.modules.get("wandb")
        if wandb is not None and wandb.run is not None:
            wandb.finish(exit_code=code)
