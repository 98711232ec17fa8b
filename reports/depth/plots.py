"""The plots of studies of depth."""

from collections.abc import Mapping, Sequence
from itertools import takewhile
from statistics import fmean
from typing import Any

from matplotlib.axes import Axes
from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter

from reports import plots

_WIDTH_OF_BLOCK = 0.42  # inches
_AXES = {"seconds": "seconds of training", "trainable": "trainable parameters"}
_MARGIN = 0.25  # of the range of accuracies
_LONG = 8  # characters of a label
_FEW_DECADES = 50  # up to this ratio of most to least, the axis also names 2 and 5 of a decade
_WIDEST, _NARROWEST = 12.0, 8.0


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
            if len(own) == 1:  # a band has no width
                axes.vlines(at, low, high, color=colour, alpha=0.5)
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
            subs = (1, 2, 5) if max(at) < _FEW_DECADES * min(at) else (1,)
            axes.xaxis.set_major_locator(LogLocator(subs=subs))
            axes.xaxis.set_major_formatter(FuncFormatter(_count_text))
            axes.xaxis.set_minor_formatter(NullFormatter())
        else:
            axes.set_xlim(left=0)
        axes.set(xlabel=_AXES[key], ylabel="accuracy on validation")
        axes.legend(loc="lower right")

    return plots.plot(draw, label, 5.4, 3.6)


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

    return plots.plot(draw, "accuracy by number of labels", 5.6, 3.4)


def _count_text(value: float, _: object) -> str:
    """Return a number of parameters as 20 k or 1.2 M."""
    for factor, unit in ((1e9, "B"), (1e6, "M"), (1e3, "k")):
        if value >= factor:
            return f"{value / factor:.3g} {unit}"
    return f"{value:.3g}"
