"""Estimate seconds, memory and disk of a run from the same run on a small part of its data."""

import math
import shutil
import subprocess
import tempfile
from collections.abc import Mapping, Sequence
from functools import partial, reduce
from pathlib import Path
from typing import Any

from omegaconf import DictConfig

from engine.command_line.commands import process_command
from engine.config.errors import ConfigError
from engine.cost.cost import Cost, costs_of_jobs
from engine.feature_cache.cache_plan import CachePlan
from engine.processes.ranks import this_rank
from run_folders.run_folder import RunFolder

_STEPS, _EVAL_BATCHES = 8, 3
_EPOCHS = 3  # the first one warms up, the others are measured
_LEAST = 60  # samples of a split, so that every class has some


def estimate(
    cfg: DictConfig, plan: Mapping[str, Any], data: Mapping[str, Any], cache_plan: CachePlan
) -> Cost:
    """Run the job on a small part of its data in a child process, and scale what it took.

    The child has its own folder and feature cache, which are removed.

    Args:
        cfg: The settled config.
        plan: The content of plan.json.
        data: The datamodule's description of its splits.
        cache_plan: The plan of the feature cache.

    Raises:
        ConfigError: If the child fails; the message is its error.
    """
    _check(cfg, plan)
    folder = Path(tempfile.mkdtemp(prefix="thaw_cost_"))
    try:
        _run_small(cfg, plan, cache_plan, folder)
        small = RunFolder(folder / "run")
        runs = sorted(small.rungs.glob("*/metrics.json")) or [small.path / "metrics.json"]
        folders = [RunFolder(path.parent) for path in runs]
        interval = cfg.trainer.get("check_val_every_n_epoch") or 1
        costs = (_scaled(each, plan, data, cache_plan, interval) for each in folders)
        cost = reduce(Cost.__add__, costs)
        if cfg.get("depth"):
            cost = cost + _of_study(small, folders, folder / "features", data)
    finally:
        shutil.rmtree(folder, ignore_errors=True)
    costs_of_jobs.append(cost)
    return cost


def _check(cfg: DictConfig, plan: Mapping[str, Any]) -> None:
    """Raise `ConfigError` if the cost of a run cannot be measured."""
    faults = []
    if this_rank() is not None:
        faults.append("it is measured before several processes start, not in one of them")
    for split in ("train", "val", "test"):
        key = f"limit_{split}_batches"
        limit = cfg.trainer.get(key)
        if limit is not None and (limit != 1.0 or isinstance(limit, int)):
            faults.append(f"set samples={{{split}: 1000}} in place of trainer.{key}")
    if cfg.trainer.get("overfit_batches"):
        faults.append("set samples={train: 1000} in place of trainer.overfit_batches")
    interval = cfg.trainer.get("val_check_interval")
    if isinstance(interval, int):
        faults.append(
            f"trainer.val_check_interval={interval} counts batches, and a part of the data has "
            f"fewer; set a share of an epoch, such as 0.5"
        )
    if plan["max_epochs"] in (None, -1) and not (plan["max_steps"] or 0) > 0:
        faults.append("trainer.max_epochs=-1 has no end; set trainer.max_epochs")
    if faults:
        msg = f"the cost cannot be measured: {'; '.join(faults)}"
        raise ConfigError(msg)


def _run_small(
    cfg: DictConfig, plan: Mapping[str, Any], cache_plan: CachePlan, folder: Path
) -> None:
    """Run the job in a child process on a few batches of each split."""
    batch = int(cfg.data.get("batch_size") or 1)
    evaluated = int(cfg.data.get("eval_batch_size") or batch)
    steps = _STEPS * int(cfg.trainer.get("accumulate_grad_batches") or 1)
    wanted = {
        "train": max(_LEAST, steps * batch),
        "val": max(_LEAST, _EVAL_BATCHES * evaluated),
        "test": max(_LEAST, _EVAL_BATCHES * evaluated),
    }
    # A study reads the test split only for the rung that it chooses.
    samples = wanted | {n: min(wanted[n], count) for n, count in plan["samples"].items()}
    stages = [stage["epoch"] for stage in plan["stages"]]
    epochs = min(max(_EPOCHS, max(stages, default=0) + 2), math.ceil(_epochs(plan)))
    overrides = [
        "plan=false",
        "estimate=false",
        f"samples={{{', '.join(f'{name}: {count}' for name, count in samples.items())}}}",
        f"trainer.max_epochs={epochs}",
        "trainer.check_val_every_n_epoch=1",
        f"cache.dir={folder / 'features'}",
        "logger=none",
    ]
    if cfg.get("depth"):
        overrides += ["depth.every_rung=true"] if "every_rung" in cfg.depth else []
    else:
        overrides.append(f"cache.features={str(cache_plan.cut is not None).lower()}")
    words = process_command(folder / "run", None)
    own = [word for word in words if not word.lstrip("+~").startswith(("logger=", "logger."))]
    command = [*own, *overrides]
    done = subprocess.run(command, capture_output=True, text=True, check=False)  # noqa: S603 - our own command
    if done.returncode:
        lines = [line for line in done.stderr.splitlines() if line.strip()]
        reason = lines[-1].removeprefix("error: ") if lines else f"exit code {done.returncode}"
        msg = f"plan=cost: the measured run failed: {reason}"
        raise ConfigError(msg)


def _scaled(
    run: RunFolder,
    plan: Mapping[str, Any],
    data: Mapping[str, Any],
    cache_plan: CachePlan,
    interval: int = 1,
) -> Cost:
    """Return the cost of the whole run from a run on a part of the data.

    Args:
        run: The folder of the measured run, which validated after each epoch.
        plan: The plan of the whole run.
        data: The description of the whole data.
        cache_plan: The plan of the feature cache of the whole run.
        interval: Number of epochs from one validation of the whole run to the next.
    """
    metrics, own_plan = run.read_json("metrics.json"), run.read_json("plan.json")
    own_data = run.read_json("provenance.json")["data"]
    seconds, history = metrics["seconds"], run.read_history()
    grown = partial(_ratio, data, own_data)
    val = grown(["val"])
    test = grown(["test"]) if "test" in data else val
    features = seconds.get("features") or 0.0
    found = bool(cache_plan.entries) and all(e.found for e in cache_plan.entries.values())
    whole_pass = 0.0 if found else features * grown(list(plan["samples"]))
    if not history:  # a study without training
        fit, epoch, own_fit = seconds["fit"] * grown(["train"], "rows"), 0.0, seconds["fit"]
        predicted = own_predicted = 0.0
    else:
        train = _training(plan, data) / _training(own_plan, own_data)
        times = [
            _epoch(row, step, own_plan["batches_per_epoch"], train, val / interval)
            for row, step in zip(history, seconds["steps"], strict=True)
        ]
        length = _epochs(plan)
        # The first epoch warms up; the last one may be a part.
        known = [times[min(max(e, 1), len(times) - 1)] for e in range(math.ceil(length))]
        fit, epoch, own_fit = sum(known), times[-1], seconds["fit"]
        fit -= known[-1] * (math.ceil(length) - length)
        own_predicted = float(history[-1]["seconds"]) - float(history[-1]["train/seconds"])
        predicted = own_predicted * val
    own_test = seconds.get("test") or 0.0
    rest = seconds["total"] - own_fit - features - own_predicted - own_test
    sizes = metrics["bytes"]
    return Cost(
        epoch=epoch,
        total=max(0.0, rest) + whole_pass + fit + predicted + own_test * test,
        host=sizes["host"],
        device=sizes["device"],
        cache=sum(e.layout.bytes for e in cache_plan.entries.values() if not e.found),
        checkpoints=sizes["checkpoints"],
    )


def _of_study(
    study: RunFolder, rungs: Sequence[RunFolder], cache: Path, data: Mapping[str, Any]
) -> Cost:
    """Return what a study takes beyond its rungs: the pass of a ladder, its start, and the cache.

    Args:
        study: The folder of the measured study.
        rungs: The folders of its rungs, or its own if it has none.
        cache: The feature cache that it filled.
        data: The description of the whole data.
    """
    own_data, metrics = study.read_json("provenance.json")["data"], study.read_json("metrics.json")
    grown = partial(_ratio, data, own_data, ["train", "val"])
    stored = sum(path.stat().st_size for path in cache.rglob("*") if path.is_file())
    seconds = 0.0
    if study.rungs.is_dir():
        features = metrics["seconds"].get("features") or 0.0
        parts = sum(rung.read_json("metrics.json")["seconds"]["total"] for rung in rungs)
        seconds = features * grown()
        seconds += max(0.0, metrics["seconds"]["total"] - parts - features)
    # Padding is not stored.
    return Cost(0.0, seconds, 0, None, round(stored * grown("tokens")), 0)


def _epoch(
    row: Mapping[str, str], step: float, own_batches: int, train: float, val: float
) -> float:
    """Return the seconds of a whole epoch.

    Args:
        row: The epoch in the history of the measured run.
        step: Its mean seconds of a step.
        own_batches: Its number of steps.
        train: Tokens with padding of an epoch, or batches: whole run divided by measured run.
        val: The same of val, divided by the number of epochs from one validation to the next.
    """
    steps = step * own_batches
    fixed = max(0.0, float(row["train/seconds"]) - steps)
    validation = float(row["seconds"]) - float(row["train/seconds"])
    whole: float = fixed + steps * train + validation * val
    return whole


def _training(plan: Mapping[str, Any], data: Mapping[str, Any]) -> float:
    """Return the number of tokens of an epoch, padding included; of batches if there are none."""
    tokens = data["train"].get("tokens")
    if tokens is None:
        return float(plan["batches_per_epoch"])
    return float(tokens / (1 - (plan["padding_share"] or 0.0)))


def _ratio(
    data: Mapping[str, Any],
    own_data: Mapping[str, Any],
    splits: Sequence[str],
    fact: str = "padded_tokens",
) -> float:
    """Return how many times a number that describes some splits is that of the measured run.

    Args:
        data: The description of the whole data.
        own_data: The description of the measured run's data.
        splits: Names of the splits; those without data are left out.
        fact: Name of the number; rows count where it is not known.

    Returns:
        The ratio; 1 if no split has data.
    """
    known = [split for split in splits if split in data and split in own_data]
    whole, part = (
        sum(described[split].get(fact) or described[split]["rows"] for split in known)
        for described in (data, own_data)
    )
    return float(whole / part) if known else 1.0


def _epochs(plan: Mapping[str, Any]) -> float:
    """Return the length of the whole training in epochs."""
    ends = [] if plan["max_epochs"] in (None, -1) else [plan["max_epochs"]]
    if plan["max_steps"] and plan["max_steps"] > 0:
        steps = math.ceil(plan["batches_per_epoch"] / plan.get("accumulate_grad_batches", 1))
        ends.append(plan["max_steps"] / max(1, steps))
    return float(min(ends))
