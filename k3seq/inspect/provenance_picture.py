"""A picture of a `Provenance`: the calls from top to bottom, the origins of their tensors, and the verdicts of their
weights."""

from typing import Any

from k3seq.errors import require_extra
from k3seq.inspect.provenance import FROZEN, GRADIENT, UNREACHED, VERDICTS, ZERO, Provenance
from k3seq.inspect.trace import shapes_text

with require_extra("report"):
    from matplotlib.figure import Figure
    from matplotlib.lines import Line2D
    from matplotlib.patches import FancyArrowPatch, FancyBboxPatch

COLORS = {GRADIENT: "#1b7837", ZERO: "#e08214", UNREACHED: "#b2182b", FROZEN: "#4d4d4d"}
BOX, INDENT, LINE = 5.0, 0.4, 0.28  # inches
NOT_USED = "#f4c7c3"


def draw_provenance(provenance: Provenance) -> Figure:
    """A figure of a `Provenance`.

    It has a box for each input and call, indented within the call around it, arrows from the origins of its tensors, and its
    weights on the right in the color of their verdict. A call whose output is not used is red.
    """
    weights = {weight.path: weight for weight in provenance.weights}
    called = {path for call in provenance.calls for path in call.weights}
    rows: list[Any] = [
        (name, 0, f"{name}: {shapes_text([(shape, dtype)])}", "#dce6f2", ()) for name, shape, dtype in provenance.inputs
    ]
    for number, call in enumerate(provenance.calls):
        label = f"{number}  {call.path} ({call.kind}): {shapes_text(call.left)}"
        rows.append((number, call.depth, label, NOT_USED if call.used is False else "white", call.weights))
    if never := [path for path in weights if path not in called]:
        rows.append((None, 0, "never called", NOT_USED, never))
    heights = [LINE * max(2, len(held) + 1) for *_, held in rows]
    deepest = max(depth for _, depth, *_ in rows)
    width, height = BOX + INDENT * deepest + 6.0, sum(heights) + 3 * LINE
    figure = Figure(figsize=(width, height))
    axes = figure.add_axes((0, 0, 1, 1))
    axes.set(xlim=(-1.5, width - 1.5), ylim=(0, height))
    axes.set_axis_off()
    axes.text(0, height - LINE, provenance.name, fontsize=11, weight="bold", va="center")
    handles = [Line2D([], [], color=COLORS[verdict], lw=4, label=verdict) for verdict in VERDICTS]
    axes.legend(handles=handles, loc="upper right", ncols=len(VERDICTS), fontsize=8, frameon=False)

    places, top = {}, height - 2 * LINE
    for (key, depth, label, color, held), height_of_row in zip(rows, heights, strict=True):
        left, middle = depth * INDENT, top - height_of_row / 2
        style: Any = dict(boxstyle="round,pad=0,rounding_size=0.06", facecolor=color, edgecolor="#333333", linewidth=0.8)
        box = FancyBboxPatch((left, middle - LINE * 0.7), BOX, LINE * 1.4, **style)
        axes.add_patch(box)
        axes.text(left + 0.1, middle, label, fontsize=7, va="center", clip_path=box, clip_on=True)
        for line, path in enumerate(held):
            weight = weights[path]
            norm = f" {weight.gradient:.1e}" if weight.verdict == GRADIENT else ""
            text = f"{path} {weight.shape}: {weight.verdict}{norm}"
            level = middle + LINE * ((len(held) - 1) / 2 - line)
            axes.text(left + BOX + 0.15, level, text, fontsize=7, va="center", color=COLORS[weight.verdict])
        places[key] = (left, middle)
        top -= height_of_row
    for number, call in enumerate(provenance.calls):
        for origin in call.origins:
            style: Any = dict(arrowstyle="-|>", mutation_scale=7, lw=0.7, color="#555555", shrinkA=0, shrinkB=0)
            bend = "arc3,rad=0.35" if places[origin][1] > places[number][1] else "arc3,rad=-0.35"
            axes.add_patch(FancyArrowPatch(places[origin], places[number], connectionstyle=bend, **style))
    return figure
