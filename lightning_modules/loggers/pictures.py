"""Pictures as the dashboards want them."""

import io

import numpy as np
from matplotlib.figure import Figure
from PIL import Image

from lightning_modules.loggers.base import Pixels

_INCHES, _MOST_NAMED = 6.0, 40


def opened(content: bytes) -> Image.Image:
    """A file's picture, in red, green and blue."""
    return Image.open(io.BytesIO(content)).convert("RGB")


def pixels(content: bytes) -> Pixels:
    """A file's picture, [H, W, 3]."""
    return np.asarray(opened(content))


def confusion_figure(classes: list[str], counts: list[list[int]]) -> Figure:
    """A confusion matrix, each row as shares of its label; many classes stand without their names."""
    matrix = np.asarray(counts, dtype=float)
    shares = matrix / np.maximum(matrix.sum(axis=1, keepdims=True), 1)
    figure = Figure(figsize=(_INCHES, _INCHES), layout="constrained")
    axes = figure.add_subplot(xlabel="prediction", ylabel="label")
    axes.imshow(shares, vmin=0, vmax=1, cmap="Blues")
    if len(classes) <= _MOST_NAMED:
        names = [name.replace("$", r"\$") for name in classes]
        axes.set_xticks(range(len(names)), names, rotation=90)
        axes.set_yticks(range(len(names)), names)
    return figure
