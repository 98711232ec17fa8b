"""The story of a run: check, build, plan, fit, test the best checkpoint, report."""

import logging
import shlex
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import lightning
from hydra.core.hydra_config import HydraConfig
from omegaconf import DictConfig, OmegaConf
from rich.console import Console

from engine.build import Parts, build
from engine.checkpoints import CheckpointError, load_checkpoint
from engine.config import validate
from engine.interrupts import InterruptedRunError
from engine.outcome import describe
from engine.plan import make_plan, print_plan
from engine.provenance import provenance
from engine.quiet import quieten
from engine.redaction import redacted
from engine.results import count_parameters, print_results, seconds, stage_record, val_figures, write_predictions
from engine.resuming import check_same_data, checkpoint_to_start_from, first_epoch
from engine.run_folder import RunFolder, write_text
from reports.page import write_report

log = logging.getLogger(__name__)


def run(cfg: DictConfig, folder: RunFolder) -> float | None:
    """Run one job.

    Args:
        cfg: The composed config.
        folder: Its run folder.

    Returns:
        The best value of the monitored figure, for sweeps; None where only the plan was asked for.
    """
    hydra_cfg = HydraConfig.get()
    console = Console(width=None if sys.stdout.isatty() else 120)
    with _recorded(folder, quiet=cfg.plan):
        validate(cfg, _overrides(), dict(hydra_cfg.runtime.choices))
        lightning.seed_everything(cfg.seed, workers=True, verbose=False)
        quieten()
        checkpoint_path = checkpoint_to_start_from(cfg, folder)
        parts = build(cfg, folder)
        if checkpoint_path is not None:
            parts.datamodule.start_epoch = first_epoch(checkpoint_path, cfg.trainer.max_epochs, parts.task)
        data = parts.datamodule.describe()
        plan = make_plan(parts.task, parts.trainer, len(parts.datamodule.train_dataloader()), data)
        print_plan(plan, console)
        if cfg.plan:
            return None
        _write_origin(cfg, folder, parts, plan, data, resuming=checkpoint_path is not None)
        with _closed_loggers(parts.trainer):
            folder.write_status("running", "fit")
            parts.trainer.fit(parts.task, datamodule=parts.datamodule, ckpt_path=checkpoint_path, weights_only=True)
            folder.write_status("running", "test")
            metrics = _test_best(cfg, folder, parts)
        folder.write_status("running", "report")
        folder.write_status("finished", "report")  # what the page says; a page that fails makes it "failed"
        write_report(folder.path)
        print_results(metrics, folder, console)
    score: float = metrics["best"]["score"]
    return score


@contextmanager
def _recorded(folder: RunFolder, *, quiet: bool) -> Iterator[None]:
    """Write how the run ended, whatever ends it."""
    try:
        yield
    except InterruptedRunError as error:
        _record_end(folder, "interrupted", str(error), quiet=quiet)
        if not quiet and folder.last_checkpoint.exists():
            log.error("to go on: %s", _resume_command(folder))
        raise
    except BaseException as error:
        log.debug("the run failed", exc_info=error)
        _record_end(folder, "failed", describe(error), quiet=quiet)
        raise
    finally:
        if quiet:
            folder.discard_unless_run()


def _record_end(folder: RunFolder, state: str, error: str, *, quiet: bool) -> None:
    if not quiet:
        folder.write_status(state, str(folder.read_json("status.json").get("stage", "setup")), error)


def _overrides() -> list[str]:
    """The command line's words as they were typed, `${...}` included."""
    words = OmegaConf.to_container(HydraConfig.get().overrides.task, resolve=False)
    return [str(word) for word in words] if isinstance(words, list) else []


def _resume_command(folder: RunFolder) -> str:
    words = [word for word in _overrides() if not word.startswith("ckpt_path=")]
    return shlex.join(["python", "train.py", *words, f"hydra.run.dir={folder.path}", "ckpt_path=last"])


def _write_origin(
    cfg: DictConfig, folder: RunFolder, parts: Parts, plan: dict[str, Any], data: dict[str, Any], *, resuming: bool
) -> None:
    """Write what the run starts from; a resumed run has to start from the same data."""
    if resuming:
        check_same_data(folder, data)
    write_text(folder.config, OmegaConf.to_yaml(redacted(cfg)))
    folder.write_json("provenance.json", provenance(cfg.seed, data))
    folder.write_json("plan.json", plan)
    if parts.datamodule.bad_rows:
        rows = [
            {"split": b.split, "file": b.file, "row": str(b.row), "line": str(b.line or ""), "reason": b.reason}
            for b in parts.datamodule.bad_rows
        ]
        folder.write_table(folder.skipped_rows, rows)


def _test_best(cfg: DictConfig, folder: RunFolder, parts: Parts) -> dict[str, Any]:
    """Test the weights of the best epoch and write the figures and predictions."""
    history = folder.read_history()
    if not folder.best_checkpoint.exists():
        msg = "training ended before the first validation, so there is no best checkpoint to test; train for a whole epoch"
        raise CheckpointError(msg)
    checkpoint = load_checkpoint(folder.best_checkpoint)
    parts.task.load_state_dict(checkpoint["state_dict"])
    start = time.perf_counter()
    parts.trainer.test(parts.task, datamodule=parts.datamodule, verbose=False)
    test_seconds = time.perf_counter() - start
    best = next(row for row in history if int(row["epoch"]) == checkpoint["epoch"])
    result = parts.task.results["test"]
    metrics = {
        "val": val_figures(best),
        "test": stage_record(result, parts.datamodule.class_names),
        "best": {
            "epoch": checkpoint["epoch"],
            "monitor": cfg.monitor,
            "score": float(best[cfg.monitor]),
            "checkpoint": str(folder.best_checkpoint.relative_to(folder.path)),
        },
        "parameters": count_parameters(parts.task),
        "seconds": seconds(history, test_seconds),
    }
    write_predictions(folder, result, parts.datamodule)
    folder.write_json("metrics.json", metrics)
    return metrics


@contextmanager
def _closed_loggers(trainer: lightning.Trainer) -> Iterator[None]:
    """Close every logger, with the state that the run ended in."""
    status, code = "failed", 1
    try:
        yield
        status, code = "success", 0
    finally:
        for logger in trainer.loggers:
            logger.finalize(status)
        wandb = sys.modules.get("wandb")
        if wandb is not None and wandb.run is not None:
            wandb.finish(exit_code=code)
