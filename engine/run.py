"""Run one job: check, build, plan, fit, test the best checkpoint, report."""

import logging
import sys
import time
from dataclasses import asdict
from pathlib import Path
from typing import Any

import lightning
import torch
from lightning.pytorch.callbacks import WeightAveraging
from lightning.pytorch.strategies import FSDPStrategy
from omegaconf import DictConfig

from engine.backbone_source import backbone_text
from engine.build import RunObjects, build
from engine.checkpoints import (
    AtomicCheckpointIO,
    CheckpointError,
    load_checkpoint,
    make_self_contained,
)
from engine.config.errors import ConfigError
from engine.config.recorded import write_config
from engine.config.settling import settle
from engine.config.validation.validate import validate
from engine.cost.cost import print_cost
from engine.cost.estimate import estimate
from engine.depth.rungs import set_rung
from engine.depth.study import StudyRequest, run_study
from engine.feature_cache.cache_plan import CachePlan
from engine.feature_cache.filling import fill_cache
from engine.feature_cache.planning import plan_cache
from engine.feature_cache.store import StoreError
from engine.old_names import translate_model
from engine.plan import make_plan, print_findings, print_plan
from engine.processes.devices import (
    barrier,
    placement,
    unused_parameters_named,
)
from engine.processes.library_warnings import filter_known
from engine.processes.ranks import launched_devices
from engine.processes.terminal import console
from engine.provenance import provenance
from engine.publishing.loggers import start_loggers
from engine.publishing.publish import publish
from engine.recording import closing_loggers, recording_end
from engine.results import (
    count_parameters,
    measured,
    print_results,
    seconds,
    task_loss,
    write_predictions,
    write_test_results,
)
from engine.resuming import (
    check_same_data,
    checkpoint_to_start_from,
    first_epoch,
    restoring,
)
from engine.trained_run import model_from_checkpoint
from engine.trainer import early_stop, naming_refusals
from reports.page import write_report
from run_folders.own_packages import own_distributions
from run_folders.run_folder import RunFolder

log = logging.getLogger(__name__)

_PACKAGES = (
    "thaw",
    "torch",
    "torchvision",
    "timm",
    "lightning",
    "torchmetrics",
    "transformers",
    "tokenizers",
    "hydra-core",
    "numpy",
    "pandas",
    "pillow",
)


def run(cfg: DictConfig, folder: RunFolder, ckpt_path: str | None = None) -> float | None:
    """Run one job.

    Args:
        cfg: The composed config.
        folder: Its run folder.
        ckpt_path: The checkpoint to start from, in place of the one of the config.

    Returns:
        The best value of the monitored metric, for sweeps; None if nothing was trained.
    """
    start = time.perf_counter()
    shown = console(width=None if sys.stdout.isatty() else 120, quiet=not folder.writes)
    with recording_end(cfg, folder):
        translate_model(cfg)
        validate(cfg)
        if (cfg.get("depth") or {}).get("rung") is not None:
            set_rung(cfg, cfg.depth.rung)  # an ordinary run
        print_findings(settle(cfg, folder, ckpt_path, launched_devices()), shown)
        validate(cfg, inferred=True)
        if torch.cuda.is_available():
            torch.cuda.reset_peak_memory_stats()
        placement(cfg)  # raises its errors before anything is loaded
        lightning.seed_everything(cfg.seed, workers=True, verbose=False)
        filter_known()
        checkpoint_path = checkpoint_to_start_from(cfg, folder)
        objects = build(cfg, folder, checkpoint_path)
        data = objects.datamodule.describe()
        cache_plan, plan = _plan(cfg, folder, objects, checkpoint_path, data)
        print_plan(plan, shown)
        if cache_plan.line():
            log.info(cache_plan.line())
        if cfg.plan == "cost" or (cfg.estimate and folder.writes):
            before = time.perf_counter()
            cost = estimate(cfg, plan, data, cache_plan)
            start += time.perf_counter() - before  # not a part of the run
            print_cost(cost, shown)
            plan["estimate"] = asdict(cost)
        if cfg.plan:
            return None
        _write_start(cfg, folder, objects, plan, data, resuming=cfg.ckpt_path is not None)
        if cfg.get("depth"):
            return run_study(StudyRequest(cfg, folder, objects, run), shown, start)
        with closing_loggers(objects.trainer):
            start_loggers(cfg, folder, objects.trainer)
            features_seconds = None
            if cfg.train:
                features_seconds = _fill_cache(cfg, folder, cache_plan, objects)
                _fit(folder, objects, checkpoint_path)
            metrics: dict[str, Any] = {"kind": objects.task.kind, "val": {}, "best": {}}
            if cfg.train:
                metrics["best"] = _load_best(cfg, folder, objects)
                metrics["val"] = _predict_validation(folder, objects)
                name = cfg.monitor.removeprefix("val/")
                metrics["best"]["score"] = metrics["val"][name]
            test_seconds = _test(cfg, folder, objects, metrics) if cfg.test else None
            metrics["loss"] = task_loss(objects.task)
            metrics["parameters"] = count_parameters(objects.task)
            times = seconds(folder.read_history(), test_seconds, features_seconds)
            metrics |= measured(folder, objects, times, start)
            folder.write_json("metrics.json", metrics)
            folder.write_status("running", "report")
            if folder.writes:
                write_report(folder.path)
                publish(cfg, folder, objects.trainer)
        folder.write_status("finished", "report")
        print_results(metrics, folder, shown)
    score: float | None = metrics["best"].get("score")
    return score


def _plan(
    cfg: DictConfig,
    folder: RunFolder,
    objects: RunObjects,
    checkpoint_path: Path | None,
    data: dict[str, Any],
) -> tuple[CachePlan, dict[str, Any]]:
    """Return the plan for the feature cache, and the content of plan.json."""
    if checkpoint_path is not None:
        objects.datamodule.start_epoch = first_epoch(
            checkpoint_path, cfg.trainer.max_epochs, objects.task
        )
    recorded = folder.read_json("plan.json").get("features") if cfg.ckpt_path == "last" else None
    study = bool(cfg.get("depth"))
    cache_plan = CachePlan() if study else plan_cache(cfg, objects, checkpoint_path, recorded)
    batches = len(objects.datamodule.train_dataloader()) if cfg.train else 0
    backbone = backbone_text(cfg.model, objects.source)
    plan = make_plan(objects.task, objects.trainer, batches, data, backbone)
    return cache_plan, {**plan, "features": cache_plan.facts()}


def _fill_cache(
    cfg: DictConfig, folder: RunFolder, cache_plan: CachePlan, objects: RunObjects
) -> float | None:
    """Read or compute the planned features, and return the seconds that this took.

    If they cannot be stored and cache.features=auto, the run continues without them and plan.json
    records the reason.
    """
    folder.write_status("running", "features")
    try:
        return fill_cache(cache_plan, objects)
    except StoreError as error:
        if cfg.cache.features is True:
            raise
        log.warning("features are not cached: %s", error)
        folder.write_json(
            "plan.json",
            {**folder.read_json("plan.json"), "features": CachePlan(reason=str(error)).facts()},
        )
    return None


def _write_start(
    cfg: DictConfig,
    folder: RunFolder,
    objects: RunObjects,
    plan: dict[str, Any],
    data: dict[str, Any],
    *,
    resuming: bool,
) -> None:
    """Write config, provenance and plan; check that a resumed run has the same data."""
    if resuming:
        check_same_data(folder, data)
    if not folder.writes:
        return
    write_config(folder.config, cfg)
    gpus = [torch.cuda.get_device_name(i) for i in range(torch.cuda.device_count())]
    packages = (*_PACKAGES, *own_distributions())
    origin = provenance(cfg.seed, data, packages, torch.get_num_threads(), gpus)
    if objects.source is not None:
        origin["backbone"] = objects.source.facts
    before = folder.read_json("provenance.json")
    # The provenance of the first start is kept, and those of resumed starts are appended.
    folder.write_json(
        "provenance.json",
        {**before, "resumed": [*before.get("resumed", []), origin]} if before else origin,
    )
    folder.write_json("plan.json", plan)
    if objects.datamodule.bad_rows:
        rows = [row.as_text() for row in objects.datamodule.bad_rows]
        folder.write_table(folder.skipped_rows, rows)
        log.info("%s lists the rows that were left out", folder.skipped_rows)


def _fit(folder: RunFolder, objects: RunObjects, checkpoint_path: Path | None) -> None:
    folder.write_status("running", "fit")
    try:
        with (
            unused_parameters_named(objects.task),
            naming_refusals(),
            restoring(checkpoint_path, objects.trainer),
        ):
            objects.trainer.fit(
                objects.task,
                datamodule=objects.datamodule,
                ckpt_path=checkpoint_path,
                weights_only=True,
            )
    except RuntimeError as error:
        if "does not have a deterministic implementation" not in str(error):
            raise
        operation = str(error).split(" does not have")[0]
        msg = (
            f"trainer.deterministic=true: {operation} has no deterministic form on this device; "
            f"set trainer.deterministic=warn"
        )
        raise ConfigError(msg) from error
    ended = early_stop(objects.trainer)
    if ended:
        log.info(ended)
        folder.write_json("plan.json", {**folder.read_json("plan.json"), "ended": ended})


def _load_best(cfg: DictConfig, folder: RunFolder, objects: RunObjects) -> dict[str, Any]:
    """Load the weights of the best epoch into the task, and return which epoch it is."""
    if folder.writes:
        io = objects.trainer.strategy.checkpoint_io
        make_self_contained(io.digests if isinstance(io, AtomicCheckpointIO) else ())
    barrier()  # rank 0 writes the checkpoints and the history
    if not folder.best_checkpoint.exists():
        msg = (
            "training ended before the first validation, so there is no best checkpoint to test; "
            "train for a whole epoch"
        )
        raise CheckpointError(msg)
    checkpoint = load_checkpoint(folder.best_checkpoint)
    if isinstance(objects.trainer.strategy, FSDPStrategy):
        # The trained task has only this process's shards.
        objects.task = model_from_checkpoint(cfg, checkpoint, folder.best_checkpoint)
        objects.task.logs_metrics = False
    else:
        objects.task.load_state_dict(checkpoint["state_dict"])
    place = str(folder.best_checkpoint.relative_to(folder.path))
    return {"epoch": checkpoint["epoch"], "monitor": cfg.monitor, "checkpoint": place}


def _predict_validation(folder: RunFolder, objects: RunObjects) -> dict[str, float | None]:
    """Predict the validation split with the best weights, write the predictions, return metrics.

    They are those of the epoch in the history, unless that epoch was validated several times.
    """
    folder.write_status("running", "validate")
    trainer, callbacks = objects.trainer, objects.trainer.callbacks  # type: ignore[attr-defined]
    # They would put the averages of the last epoch in place of the best weights.
    trainer.callbacks = [c for c in callbacks if not isinstance(c, WeightAveraging)]  # type: ignore[attr-defined]
    with naming_refusals():
        trainer.validate(objects.task, datamodule=objects.datamodule, verbose=False)
    trainer.callbacks = callbacks  # type: ignore[attr-defined]
    if folder.writes:
        write_predictions(folder, objects, "val")
    result = objects.task.results["val"]
    return {"n": result.count, **result.metrics}


def _test(
    cfg: DictConfig, folder: RunFolder, objects: RunObjects, metrics: dict[str, Any]
) -> float:
    """Test the task, write its predictions, and add the test metrics to `metrics`.

    Returns:
        The duration of the test in seconds.
    """
    folder.write_status("running", "test")
    start = time.perf_counter()
    with naming_refusals():
        objects.trainer.test(objects.task, datamodule=objects.datamodule, verbose=False)
    test_seconds = time.perf_counter() - start
    if not cfg.train:  # evaluate.py and predict.py read this checkpoint
        objects.trainer.save_checkpoint(folder.best_checkpoint)
    if folder.writes:
        metrics["test"] = write_test_results(cfg, folder, objects)
    return test_seconds
