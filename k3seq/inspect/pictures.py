"""Pictures as PNG files: matplotlib's Agg canvas, without pyplot and its global state."""

import os
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from k3seq.data.files import replacing
from k3seq.errors import require_extra
from k3seq.typing import NDArray

with require_extra("report"):
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure
    from matplotlib.ticker import MaxNLocator


def draw_ascent(ascent: Any, title: str = "") -> Figure:
    """A figure of an `Ascent`: the input found, and the unit's activation over the steps.

    An input `(height, width, 1 or 3)` or `(height, width)` is shown as an image, one of one axis as a line.
    """
    figure = Figure(figsize=(8, 4), layout="constrained")
    left, right = figure.subplots(1, 2)
    _show(left, ascent.input)
    left.set_title(title)
    right.plot(ascent.activations)
    right.set(xlabel="step", ylabel="mean activation")
    return figure


def draw_images(images: NDArray[Any], columns: int = 8) -> Figure:
    """A figure of `images (n, height, width, 1 or 3)` in rows of `columns`.

    Raises: ValueError when there is no image or no column.
    """
    if len(images) < 1 or columns < 1:
        raise ValueError(f"Expected at least one image and column. Received: {len(images)} images, columns={columns}")
    columns = min(columns, len(images))
    rows = -(-len(images) // columns)
    figure = Figure(figsize=(columns, rows), layout="constrained")
    axes = figure.subplots(rows, columns, squeeze=False).flat
    for place in axes:
        place.set_axis_off()
    for place, image in zip(figure.axes, images, strict=False):  # the last row may be short
        _show(place, image)
    return figure


def draw_training(epochs: Sequence[Mapping[str, Any]]) -> Figure:
    """A figure of the epochs of a run: losses on the left, error rate and accuracy of decoding on the right.

    An epoch is a dict with number and loss, and with dev_loss, error_rate and sequence_accuracy where there are dev pairs.

    Raises: ValueError when there is no epoch.
    """
    if not epochs:
        raise ValueError("Expected at least one epoch. Received: none")
    figure = Figure(figsize=(9, 4), layout="constrained")
    panels = {"loss per token": ("loss", "dev_loss")}
    if "dev_loss" in epochs[0]:
        panels["share of held-out pairs"] = ("error_rate", "sequence_accuracy")
    for axes, (title, names) in zip(np.atleast_1d(figure.subplots(1, len(panels))), panels.items(), strict=True):
        for name in names:
            if name in epochs[0]:
                axes.plot(
                    [row["number"] for row in epochs], [row[name] for row in epochs], marker=".", label=name.replace("_", " ")
                )
        axes.set(xlabel="epoch", ylabel=title)
        axes.xaxis.set_major_locator(MaxNLocator(integer=True))
        axes.set_ylim(bottom=0)
        axes.legend()
    return figure


def save_figure(figure: Figure, path: str | os.PathLike[str]) -> None:
    """Writes a figure as PNG, complete or not at all (see `k3seq.data.files.replacing`).

    Raises: OSError when the folder does not exist or cannot be written to.
    """
    with replacing(path) as temporary, open(temporary, "wb") as file:
        FigureCanvasAgg(figure).print_png(file)


def _show(axes, values):
    values = np.asarray(values, "float32")
    if values.ndim == 1:
        axes.plot(values)
        return
    if values.ndim == 3 and values.shape[-1] == 1:
        values = values[..., 0]
    if values.ndim == 3:
        # Colors are scaled to their range here; imshow itself scales a single channel.
        low, high = values.min(), values.max()
        values = (values - low) / (high - low) if high > low else np.zeros_like(values)
    axes.imshow(values, cmap="gray")
    axes.set_xticks([])
    axes.set_yticks([])
