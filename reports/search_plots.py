"""Plots of a search: objective of each trial, parameter importance, objective by parameter."""

from collections.abc import Mapping, Sequence
from typing import Any

from matplotlib.axes import Axes

from reports import plots

_MAX_SLICES = 12


def search_plots(search: Mapping[str, Any]) -> dict[str, str]:
    """Return the plots of each objective of a search, title -> SVG.

    Args:
        search: Content of search.json.
    """
    drawn = {}
    for at, (objective, mode) in enumerate(search["objectives"].items()):
        complete = [(t, t["values"][at]) for t in search["trials"] if t["state"] == "complete"]
        pruned = [
            (t, _last_reported(t))
            for t in search["trials"]
            if t["state"] == "pruned" and t["reported"]
        ]
        if not complete:
            continue
        drawn[f"{objective} of each trial"] = _history(complete, pruned, objective, mode)
        importance = search["importance"].get(objective)
        if importance:
            drawn[f"importance for {objective}"] = plots.bars(
                importance, "share of the variance explained", f"importance {objective}"
            )
        names = list(dict.fromkeys(name for t, _ in complete for name in t["params"]))
        names.sort(key=lambda name: -(importance or {}).get(name, 0.0))
        for name in names[:_MAX_SLICES]:
            points = [
                [(t["params"][name], v) for t, v in group if name in t["params"]]
                for group in (complete, pruned)
            ]
            label = f"slice {name} {objective}"
            drawn[f"{objective} by {name}"] = plots.scatter(
                points, name, objective, label, log=name in search["log"]
            )
    return drawn


def _last_reported(trial: Mapping[str, Any]) -> float:
    return float(trial["reported"][max(trial["reported"], key=int)])


def _history(complete: Sequence[Any], pruned: Sequence[Any], objective: str, mode: str) -> str:
    better = max if mode == "max" else min
    numbers = [t["number"] for t, _ in complete]
    so_far = [better(v for _, v in complete[: i + 1]) for i in range(len(complete))]
    last = max(t["number"] for t, _ in [*complete, *pruned])

    def draw(axes: Axes) -> None:
        axes.step(
            [*numbers, last],
            [*so_far, so_far[-1]],
            where="post",
            color=plots.INK,
            linewidth=0.9,
            label="best so far",
        )

    points = [[(t["number"], v) for t, v in group] for group in (complete, pruned)]
    return plots.scatter(points, "trial", objective, f"history {objective}", draw=draw)
