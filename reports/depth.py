"""The part of a page that answers how deep to thaw the backbone."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from itertools import takewhile
from pathlib import Path
from statistics import fmean
from typing import Any

import pandas as pd
from matplotlib.axes import Axes
from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter

from reports import plots
from reports.climbing import Climbed, Correct, climb, read_rung
from reports.record import RunRecord
from reports.statistics import mcnemar_exact
from reports.tables import check_columns, read_parquet
from run_folders.run_folder import RunFolder
from run_folders.untrusted import damaged

_WIDTH_OF_BLOCK = 0.42  # inches
_AXES = {"seconds": "seconds of training", "trainable": "trainable parameters"}
_SIGNIFICANCE = 0.05
_MARGIN = 0.25  # of the range of accuracies
_LONG = 8  # characters of a label
_WIDEST, _NARROWEST = 12.0, 8.0


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


def overrides_of(start_layer: str | None) -> str:
    """Return the overrides that train a run from a layer on."""
    if start_layer is None:
        return "model.freeze_backbone=true"
    return f"callbacks=unfreezing callbacks.unfreezing.start_layer={start_layer}"


def _probe(run: RunRecord) -> dict[str, Any]:
    states, advice = run.depth["states"], run.depth["advice"]
    return {
        "plot": probe_plot(states, advice),
        "overrides": overrides_of(advice["start_layer"]),
        "best": next(state for state in states if state["best"]),
        "seconds": sum(run.depth["seconds"].values()),
    }


def probe_plot(states: Sequence[Mapping[str, Any]], advice: Mapping[str, Any]) -> str:
    """Draw the accuracy after each block with its interval, and the blocks that are to train.

    Args:
        states: The probed states, in the order of the network.
        advice: The advice.

    Returns:
        An SVG element.
    """
    blocks = list(dict.fromkeys(state["after"] for state in states))
    common, names = _short(blocks)

    def draw(axes: Axes) -> None:
        first, end = blocks.index(advice["after"]) + 0.5, len(blocks) - 0.5
        for i, pooling in enumerate(dict.fromkeys(state["pooling"] for state in states)):
            own = [state for state in states if state["pooling"] == pooling]
            at = [blocks.index(state["after"]) for state in own]
            colour = plots.SERIES[i % len(plots.SERIES)]
            low, high = zip(*(state["interval"] for state in own), strict=True)
            axes.fill_between(at, low, high, color=colour, alpha=0.14, linewidth=0)
            values = [state["acc"] for state in own]
            axes.plot(at, values, "-o", color=colour, markersize=4, label=pooling)
        best = next(state for state in states if state["best"])
        place = [blocks.index(best["after"])], [best["acc"]]
        axes.plot(*place, "o", color=plots.INK, markersize=11, fillstyle="none", label="best")
        if advice["start_layer"] is not None:
            axes.axvspan(first, end, color=plots.SERIES[2], alpha=0.1, linewidth=0, label="train")
        axes.axvline(first, color=plots.SERIES[2], linewidth=1.4, linestyle="--")
        # A pooling that fails in some layers would press all others together.
        lowest = min(max(s["interval"][0] for s in states if s["after"] == b) for b in blocks)
        highest = max(s["interval"][1] for s in states)
        margin = _MARGIN * (highest - lowest)
        axes.set(xlim=(-0.5, end), ylim=(lowest - margin, highest + margin))
        turned = max(len(line) for name in names for line in name.split("\n")) > _LONG
        axes.set_xticks(range(len(blocks)), names, rotation=45 if turned else 0,
                        ha="right" if turned else "center")  # fmt: skip
        axes.set(xlabel=f"state after {common}", ylabel="accuracy on validation")
        axes.legend(loc="lower left", bbox_to_anchor=(0, 1), ncols=5)

    width = min(_WIDEST, max(_NARROWEST, _WIDTH_OF_BLOCK * len(blocks) + 1.5))
    return plots.plot(draw, "accuracy of a linear probe after each block", width, 4.2)


def _short(names: Sequence[str]) -> tuple[str, list[str]]:
    """Return the modules that all layers are in, and the names of the layers inside of them."""
    layers = [name.split(".")[:-1] for name in names if " " not in name]
    common = takewhile(lambda parts: len({*parts}) == 1, zip(*layers, strict=False))
    start = "".join(f"{parts[0]}." for parts in common)
    short = [name.removeprefix(start).removeprefix("the ") for name in names]
    return start + "*" * bool(start), [name.replace(" ", "\n") for name in short]


def _ladder(run: RunRecord) -> dict[str, Any]:
    rungs = run.depth["rungs"]
    chosen = next(rung for rung in rungs if rung["name"] == run.depth["chosen"])
    overrides = overrides_of(chosen["start_layer"])
    return {"chosen": chosen, "overrides": overrides, "plots": rung_plots(rungs, chosen)}


def rung_plots(
    rungs: Sequence[Mapping[str, Any]], chosen: Mapping[str, Any], name: str = ""
) -> dict[str, str]:
    """Return the plots of the rungs by what they cost, title -> SVG.

    Args:
        rungs: The trained rungs.
        chosen: The chosen one.
        name: A name of the ladder, if a page has several.
    """
    label = f"accuracy of each rung, {chosen['name']} chosen {name}".strip()
    return {
        title: rung_plot(rungs, chosen, key, f"{label} by {title}") for key, title in _AXES.items()
    }


def rung_plot(
    rungs: Sequence[Mapping[str, Any]], chosen: Mapping[str, Any], key: str, label: str
) -> str:
    """Draw the accuracy of each rung with its interval over what it costs.

    Args:
        rungs: The trained rungs.
        chosen: The chosen one.
        key: `seconds` or `trainable`, the x axis.
        label: Description for screen readers.

    Returns:
        An SVG element.
    """

    def draw(axes: Axes) -> None:
        at = [rung[key] for rung in rungs]
        accuracies = [rung["acc"] for rung in rungs]
        axes.plot(at, accuracies, "-", color=plots.SERIES[0], linewidth=0.8, alpha=0.5)
        for rung in rungs:
            low, high = rung["interval"]
            lines = [[rung["acc"] - low], [high - rung["acc"]]]
            colour = plots.SERIES[2] if rung is chosen else plots.SERIES[0]
            axes.errorbar(
                rung[key], rung["acc"], yerr=lines, fmt="o", color=colour, capsize=3, markersize=5
            )
            axes.annotate(
                rung["name"], (rung[key], rung["acc"]), (6, 5), textcoords="offset points"
            )
        place = [chosen[key]], [chosen["acc"]]
        axes.plot(*place, "o", color=plots.INK, markersize=12, fillstyle="none", label="chosen")
        axes.margins(x=0.12)
        if key == "trainable":
            axes.set_xscale("log")
            axes.xaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
            axes.xaxis.set_major_formatter(FuncFormatter(_count_text))
            axes.xaxis.set_minor_formatter(NullFormatter())
        else:
            axes.set_xlim(left=0)
        axes.set(xlabel=_AXES[key], ylabel="accuracy on validation")
        axes.legend(loc="lower right")

    return plots.plot(draw, label, 5.4, 3.6)


def _labels(run: RunRecord) -> dict[str, Any]:
    depth = run.depth
    return {
        "plot": label_plot(depth["parts"], depth["law"], depth["twice"]),
        "now": fmean(depth["parts"][-1]["acc"]),
        "seconds": sum(depth["seconds"].values()),
    }


def label_plot(
    parts: Sequence[Mapping[str, Any]], law: Mapping[str, Any], twice: Mapping[str, Any]
) -> str:
    """Draw the accuracy over the number of labels, the power law, and its prediction.

    Args:
        parts: Numbers of labels and the accuracies of their draws.
        law: The power law.
        twice: The prediction for twice the labels.

    Returns:
        An SVG element.
    """

    def draw(axes: Axes) -> None:
        counts = [part["n"] for part in parts]
        for part in parts:
            ends = [min(part["acc"]), max(part["acc"])]
            axes.plot([part["n"]] * 2, ends, color=plots.SERIES[0], linewidth=4, alpha=0.3)
        means = [fmean(part["acc"]) for part in parts]
        axes.plot(counts, means, "o", color=plots.SERIES[0], markersize=5, label="heads")
        steps = [counts[0] + (twice["n"] - counts[0]) * i / 100 for i in range(101)]
        curve = [law["limit"] - law["scale"] * n ** -law["exponent"] for n in steps]
        axes.plot(steps, curve, "--", color=plots.INK, linewidth=1, label="power law")
        lines = [[max(0.0, twice["acc"] - twice["low"])], [max(0.0, twice["high"] - twice["acc"])]]
        axes.errorbar(
            twice["n"], twice["acc"], yerr=lines, fmt="D", color=plots.SERIES[1], capsize=4,
            markersize=6, label="twice the labels, predicted",
        )  # fmt: skip
        axes.set(xlabel="labels", ylabel="accuracy on validation")
        axes.set_xlim(left=0)
        axes.legend(loc="lower right")

    return plots.plot(draw, "accuracy by number of labels", 8.0, 4.2)


def ladders(
    path: Path, runs: Sequence[RunRecord], rungs: Sequence[str], names: Sequence[str]
) -> list[dict[str, Any]]:
    """Return a ladder for each group of jobs that differ by their rung only.

    Args:
        path: The sweep's folder.
        runs: Finished runs of `depth=ladder` with `depth.rung`.
        rungs: The rung of each.
        names: The name of the group of each, which tells its other overrides.

    Returns:
        For each group its `name`, `rungs`, the `chosen` one, `plots`, and `overrides` to train it.
    """
    groups: dict[str, list[tuple[Climbed, Correct]]] = {}
    for run, rung, name in zip(runs, rungs, names, strict=True):
        read = read_rung(rung, run.folder, path.resolve())
        groups.setdefault(name, []).append(read)
    found = []
    for name, group in groups.items():
        group.sort(key=lambda rung: rung[0].trainable)
        climbed, at = climb(group, _SIGNIFICANCE)
        rows = [asdict(row) for row in climbed]
        chosen = rows[at]
        plots_of_group = rung_plots(rows, chosen, name)
        found.append(
            {
                "name": name,
                "rungs": rows,
                "chosen": chosen,
                "plots": plots_of_group,
                "overrides": overrides_of(chosen["start_layer"]),
            }
        )
    return found


def _count_text(value: float, _: object) -> str:
    """Return a number of parameters as 20 k or 1.2 M."""
    for factor, unit in ((1e9, "B"), (1e6, "M"), (1e3, "k")):
        if value >= factor:
            return f"{value / factor:.3g} {unit}"
    return f"{value:.3g}"


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
