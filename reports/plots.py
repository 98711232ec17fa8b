"""SVG plots that take their colours from the page, so one plot serves light and dark theme."""

import html
import io
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import matplotlib as mpl
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle
from matplotlib.ticker import LogLocator, MaxNLocator, NullFormatter, StrMethodFormatter

# Placeholder colours: each is replaced by a CSS variable in the written SVG.
INK, _LINE = "#010203", "#040506"
SERIES = ("#0a0b01", "#0a0b02", "#0a0b03", "#0a0b04", "#0a0b05", "#0a0b06")
_VARIABLES = {INK: "var(--ink)", _LINE: "var(--line)"} | {
    c: f"var(--series-{i})" for i, c in enumerate(SERIES, 1)
}
# A font of Matplotlib with a placeholder for every character that the others lack, so that no name
# of a class causes a warning. The browser draws the text with its own fonts.
_ANY_GLYPH = "Last Resort High-Efficiency"
_STYLE: dict[str, Any] = {
    "svg.fonttype": "none",
    "text.parse_math": False,  # a class or run may be called $x$
    "font.family": ["sans-serif", _ANY_GLYPH],
    "font.size": 10,
    "text.color": INK,
    "axes.labelcolor": INK,
    "axes.edgecolor": _LINE,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "grid.color": _LINE,
    "grid.linewidth": 0.6,
    "xtick.color": INK,
    "ytick.color": INK,
    "legend.frameon": False,
}
_MARGIN = 0.1  # inches
_MAX_NUMBERED_CLASSES = 20
_LONG_NAME = 12


@contextmanager
def _styled(salt: str, *, grid: bool = True) -> Iterator[None]:
    """Apply the plot style.

    The salt makes SVG ids reproducible, and different in the plots of one page.
    """
    settings: Any = {**_STYLE, "axes.grid": grid, "svg.hashsalt": salt}
    with mpl.rc_context(settings):
        yield


def _svg(figure: Figure, label: str) -> str:
    buffer = io.StringIO()
    # "tight" would draw the whole figure once more, to find the same box.
    box = figure.get_tightbbox().padded(_MARGIN)
    figure.savefig(buffer, format="svg", transparent=True, bbox_inches=box, metadata={"Date": None})
    text = buffer.getvalue()
    text = re.sub(r"<metadata>.*?</metadata>", "", text[text.index("<svg") :], flags=re.DOTALL)
    for colour, variable in _VARIABLES.items():
        text = text.replace(colour, variable)
    text = text.replace(f", '{_ANY_GLYPH}'", "")
    described = f'<svg role="img" aria-label="{html.escape(label)}" class="plot" '
    return text.replace("<svg ", described, 1)


def _axes(width: float = 4.6, height: float = 3.0) -> tuple[Figure, Axes]:
    figure = Figure(figsize=(width, height))
    return figure, figure.subplots()


def plot(draw: Callable[[Axes], None], label: str, width: float = 4.6, height: float = 3.0) -> str:
    """Draw a plot in the style of the page, for kinds of task of own packages.

    Args:
        draw: Draws on the axes, with the colours `SERIES` and `INK`.
        label: Description for screen readers.
        width: Width in inches.
        height: Height in inches.

    Returns:
        An SVG element.
    """
    with _styled(label):
        figure, axes = _axes(width, height)
        draw(axes)
        return _svg(figure, label)


def curves(
    series: Mapping[str, tuple[Sequence[float], Sequence[float]]], ylabel: str, label: str
) -> str:
    """Draw lines over epochs.

    Args:
        series: Name -> (epochs, values).
        ylabel: Label of the y axis.
        label: Description for screen readers.

    Returns:
        An SVG element.
    """
    with _styled(label):
        figure, axes = _axes()
        for i, (name, (epochs, values)) in enumerate(series.items()):
            points = pd.DataFrame({"x": epochs, "y": values}).dropna()
            dashes = "-" if i < len(SERIES) else "--"
            axes.plot(
                points.x,
                points.y,
                dashes,
                color=SERIES[i % len(SERIES)],
                marker="o",
                markersize=3,
                # Matplotlib leaves labels that begin with _ out of the legend.
                label=f" {name}" if name.startswith("_") else name,
            )
        axes.set_xlabel("epoch")
        axes.set_ylabel(ylabel)
        axes.xaxis.set_major_locator(MaxNLocator(integer=True))
        if max(map(len, series), default=0) > _LONG_NAME:
            # Above the plot, because long names of runs would cover the lines.
            axes.legend(loc="lower left", bbox_to_anchor=(0, 1))
        elif len(series) > 1:
            axes.legend()
        return _svg(figure, label)


def confusion_matrix(counts: Sequence[Sequence[int]], names: Sequence[str]) -> str:
    """Draw a confusion matrix, each cell shaded by its share of the label's samples.

    Args:
        counts: [K][K], row the label, column the prediction.
        names: [K] class names.

    Returns:
        An SVG element.
    """
    size = len(names)
    side = min(9.0, max(3.2, 0.55 * size + 1.8))
    with _styled("confusion", grid=False):
        figure, axes = _axes(side, side * 0.85)
        for i, row in enumerate(counts):
            total = sum(row)
            for j, count in enumerate(row):
                share = count / total if total else 0.0
                colour = SERIES[0] if i == j else SERIES[1]
                axes.add_patch(
                    Rectangle(
                        (j - 0.5, i - 0.5),
                        1,
                        1,
                        facecolor=colour,
                        alpha=0.06 + 0.5 * share,
                        linewidth=0,
                    )
                )
                if size <= _MAX_NUMBERED_CLASSES:
                    share_text = f"\n{share:.1%}" if size <= 4 else ""  # noqa: PLR2004
                    axes.text(j, i, f"{count}{share_text}", ha="center", va="center")
        axes.set(
            xlim=(-0.5, size - 0.5), ylim=(size - 0.5, -0.5), xlabel="prediction", ylabel="label"
        )
        if size <= _MAX_NUMBERED_CLASSES:
            rotation = 0 if size <= 4 else 60  # noqa: PLR2004
            axes.set_xticks(range(size), names, rotation=rotation)
            axes.set_yticks(range(size), names)
        return _svg(figure, "confusion matrix")


def reliability(bins: Sequence[Mapping[str, float]]) -> str:
    """Draw accuracy over confidence; on the diagonal the confidence is calibrated.

    Args:
        bins: Confidence bins with lower, upper, count, confidence (mean) and acc.

    Returns:
        An SVG element.
    """
    total = sum(b["count"] for b in bins)
    with _styled("reliability"):
        figure, axes = _axes(4.2, 3.4)
        axes.plot([0, 1], [0, 1], "--", color=INK, linewidth=0.8)
        for b in bins:
            left, width = b["lower"], b["upper"] - b["lower"]
            strength = 0.25 + 0.6 * b["count"] / total
            axes.bar(
                left,
                b["acc"],
                width,
                align="edge",
                color=SERIES[0],
                alpha=strength,
                edgecolor=SERIES[0],
            )
        axes.plot(
            [b["confidence"] for b in bins],
            [b["acc"] for b in bins],
            "o",
            color=SERIES[1],
            markersize=4,
        )
        lowest = min((b["lower"] for b in bins), default=0.0)
        axes.set(xlim=(lowest, 1), ylim=(0, 1.02), xlabel="confidence", ylabel="accuracy")
        return _svg(figure, "reliability diagram")


def bars(shares: Mapping[str, float], xlabel: str, label: str) -> str:
    """Draw a horizontal bar for each name, the longest on top.

    Args:
        shares: Name -> value.
        xlabel: Label of the x axis.
        label: Description for screen readers.

    Returns:
        An SVG element.
    """
    ordered = sorted(shares.items(), key=lambda item: item[1])
    with _styled(label):
        figure, axes = _axes(4.6, 0.8 + 0.35 * len(ordered))
        axes.barh(
            [name for name, _ in ordered],
            [value for _, value in ordered],
            color=SERIES[0],
            height=0.6,
        )
        for position, (_, value) in enumerate(ordered):
            axes.text(value, position, f" {value:.2f}", va="center")
        axes.grid(visible=False, axis="y")
        axes.set_xlabel(xlabel)
        return _svg(figure, label)


def scatter(
    groups: Sequence[Sequence[tuple[Any, float]]],
    xlabel: str,
    ylabel: str,
    label: str,
    *,
    log: bool = False,
    draw: Callable[[Axes], None] | None = None,
) -> str:
    """Draw completed trials as points and pruned trials as crosses.

    Args:
        groups: The completed and the pruned trials, each a list of (x, y). If any x is not a
            number, x is drawn as a category.
        xlabel: Label of the x axis.
        ylabel: Label of the y axis.
        label: Description for screen readers.
        log: Whether the x axis is logarithmic; ignored for categories.
        draw: Draws on the axes before the points.

    Returns:
        An SVG element.
    """
    numbers = all(
        isinstance(x, int | float) and not isinstance(x, bool) for group in groups for x, _ in group
    )
    with _styled(label):
        figure, axes = _axes()
        if draw is not None:
            draw(axes)
        for points, marker, colour, name in zip(
            groups, "ox", (SERIES[0], SERIES[1]), ("completed", "pruned"), strict=True
        ):
            if points:
                xs = [x if numbers else str(x) for x, _ in points]
                axes.scatter(
                    xs, [y for _, y in points], marker=marker, color=colour, label=name, s=24
                )
        axes.set(xlabel=xlabel, ylabel=ylabel)
        if log and numbers:
            axes.set_xscale("log")
            axes.xaxis.set_major_locator(LogLocator(subs=(1, 3)))
            axes.xaxis.set_major_formatter(StrMethodFormatter("{x:g}"))
            axes.xaxis.set_minor_formatter(NullFormatter())
        if all(groups) or draw is not None:
            axes.legend()
        return _svg(figure, label)
