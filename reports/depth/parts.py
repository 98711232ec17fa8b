"""The part of a page that answers how deep to thaw the backbone."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from statistics import fmean
from typing import Any

import pandas as pd

from reports.depth.plots import label_plot, probe_plot, rung_plots
from reports.depth.rungs import Correct, TrainedRung, compare_rungs, read_rung
from reports.record import RunRecord
from reports.statistics import mcnemar_exact
from reports.tables import check_columns, read_parquet
from run_folders.run_folder import RunFolder
from run_folders.untrusted import damaged


def study_context(run: RunRecord) -> dict[str, Any]:
    """Return what the template of a study shows; empty if the run is no study.

    Raises:
        DamagedFileError: If depth.json names an unknown study.
    """
    if not run.depth:
        return {}
    study = run.depth["study"]
    if study not in _CONTEXTS:
        path = run.folder / "depth.json"
        raise damaged(path, f"its study {study!r} is none of {', '.join(_CONTEXTS)}")
    return _CONTEXTS[study](run)


def overrides_of(start_layer: str | None, config: Mapping[str, Any]) -> str:
    """Return the overrides that train a run from a layer on.

    Args:
        start_layer: The layer; None for the head alone.
        config: The config of the study. Its other callbacks are kept.
    """
    callbacks = {name: node for name, node in (config.get("callbacks") or {}).items() if node}
    targets = {name: str(node.get("_target_")) for name, node in callbacks.items()}
    unfreezing = [name for name, target in targets.items() if target.endswith(".LayerUnfreezing")]
    if start_layer is None:
        removed = (f"'~callbacks.{name}'" for name in unfreezing)  # a shell expands ~ at a start
        return " ".join(("model.freeze_backbone=true", *removed))
    if unfreezing:
        name, words = unfreezing[-1], []
    else:
        stops = any(target.endswith(".EarlyStopping") for target in targets.values())
        name = "unfreezing"
        words = [f"callbacks={'unfreezing_early_stopping' if stops else 'unfreezing'}"]
    words.append(f"callbacks.{name}.start_layer={start_layer}")
    for key in ("schedule", "lr_factors", "last_blocks"):
        if callbacks.get(name, {}).get(key) is not None:
            words.append(f"callbacks.{name}.{key}=null")
    if (config.get("model") or {}).get("freeze_backbone"):
        words.append("model.freeze_backbone=false")
    return " ".join(words)


def _probe(run: RunRecord) -> dict[str, Any]:
    states, advice = run.depth["states"], run.depth["advice"]
    return {
        "plot": probe_plot(states, advice),
        "overrides": overrides_of(advice["start_layer"], run.config),
        "best": next(state for state in states if state["best"]),
        "seconds": sum(run.depth["seconds"].values()),
    }


def _ladder(run: RunRecord) -> dict[str, Any]:
    rungs = run.depth["rungs"]
    chosen = next(rung for rung in rungs if rung["name"] == run.depth["chosen"])
    overrides = overrides_of(chosen["start_layer"], run.config)
    return {"chosen": chosen, "overrides": overrides, "plots": rung_plots(rungs, chosen)}


def _labels(run: RunRecord) -> dict[str, Any]:
    depth = run.depth
    return {
        "plot": label_plot(depth["parts"], depth["law"], depth["twice"]),
        "now": fmean(depth["parts"][-1]["acc"]),
        "seconds": sum(depth["seconds"].values()),
    }


def ladders(
    path: Path,
    runs: Sequence[RunRecord],
    rungs: Sequence[str],
    names: Sequence[str],
    significance: float,
) -> list[dict[str, Any]]:
    """Return a ladder for each group of jobs that differ by their rung only.

    Args:
        path: The sweep's folder.
        runs: Finished runs of `depth=ladder` with `depth.rung`.
        rungs: The rung of each.
        names: The name of the group of each, which tells its other overrides.
        significance: The p-value below which two rungs differ.

    Returns:
        For each group its `name`, `rungs`, the `chosen` one, `plots`, and `overrides` to train it.
    """
    groups: dict[str, list[tuple[TrainedRung, Correct]]] = {}
    configs: dict[str, Mapping[str, Any]] = {}
    for run, rung, name in zip(runs, rungs, names, strict=True):
        read = read_rung(rung, run.folder, path.resolve())
        groups.setdefault(name, []).append(read)
        configs.setdefault(name, run.config)
    found = []
    for name, group in groups.items():
        group.sort(key=lambda rung: rung[0].trainable)
        climbed, at = compare_rungs(group, significance)
        rows = [asdict(row) for row in climbed]
        chosen = rows[at]
        plots_of_group = rung_plots(rows, chosen, name)
        found.append(
            {
                "name": name,
                "rungs": rows,
                "significance": significance,
                "chosen": chosen,
                "plots": plots_of_group,
                "overrides": overrides_of(chosen["start_layer"], configs[name]),
            }
        )
    return found


def ranking(runs: Sequence[RunRecord], names: Sequence[str]) -> list[dict[str, Any]]:
    """Return a row for each probed backbone, the best first.

    Args:
        runs: Finished runs of `depth=probe`.
        names: A display name for each.

    Returns:
        Rows with `name`, `run`, `state` (the best one), `advice`, `seconds`, and `p` of McNemar's
        exact test against the first row; None without a prediction of the same samples.
    """
    rows: list[dict[str, Any]] = []
    for run, name in zip(runs, names, strict=True):
        state = next(state for state in run.depth["states"] if state["best"])
        seconds = sum(run.depth["seconds"].values())
        rows.append({"name": name, "run": run, "state": state, "seconds": seconds})
    rows.sort(key=lambda row: -row["state"]["acc"])
    best = _val_predictions(rows[0]["run"]) if rows else None
    for row in rows:
        row["p"] = _p_against(best, _val_predictions(row["run"]))
    return rows


def _val_predictions(run: RunRecord) -> pd.DataFrame | None:
    path = RunFolder(run.folder).predictions_of("val")
    if not path.is_file():
        return None
    table = read_parquet(path)
    check_columns(path, table, {"index": int, "label": str, "prediction": str})
    return table


def _p_against(best: pd.DataFrame | None, other: pd.DataFrame | None) -> float | None:
    """Return the p-value of McNemar's exact test; None without predictions of the same samples."""
    same = ["index", "label"]
    if best is None or other is None or not best[same].equals(other[same]):
        return None
    ours, theirs = (table["label"] == table["prediction"] for table in (best, other))
    return mcnemar_exact(int((ours & ~theirs).sum()), int((~ours & theirs).sum()))


_CONTEXTS = {"probe": _probe, "ladder": _ladder, "labels": _labels}
