"""The first mismatch of two runs: the first layer in the order of the calls, the first step and the first row. NumPy only."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from k3seq.parity.compare import SHARE, compare, difference, leaves, renumbered
from k3seq.typing import ArrayLike, NDArray, Nested

# The calls that `trace.trace` recorded: {"layer", "class", "inputs", "arguments", "outputs"} of each.
Calls = Sequence[Mapping[str, Any]]


@dataclass(frozen=True)
class Place:
    """Path and class of a layer and, for a sequence, the first step and the first row with a mismatch, or None."""

    layer: str
    kind: str = ""
    step: int | None = None
    row: int | None = None

    def __str__(self) -> str:
        found = f"{self.layer} ({self.kind})" if self.kind else self.layer
        if self.step is not None:
            found += f", step {self.step}"
        return found if self.row is None else f"{found}, row {self.row}"


def first_mismatch(ours: Calls, theirs: Calls, tolerance: float) -> Place | None:
    """The first call with equal arguments and different outputs; None where there is none.

    A layer that contains layers is named only where none of those has a mismatch: then the error is in its own code.

    Args:
        ours, theirs: the recorded calls of two backends.
        tolerance: largest relative error.
    """
    names = [renumbered([call["layer"] for call in calls]) for calls in (ours, theirs)]
    for index, (a, b) in enumerate(zip(ours, theirs, strict=False)):
        if names[0][index] != names[1][index]:
            return Place(a["layer"], f"{a['class']} on one backend, {b['layer']} on the other")
        given = compare([a["inputs"], a["arguments"]], [b["inputs"], b["arguments"]])
        found = compare(a["outputs"], b["outputs"])
        if given.relative <= tolerance < found.relative:
            return Place(a["layer"], a["class"], *step_and_row(a["outputs"], b["outputs"], tolerance))
    if len(ours) != len(theirs):
        longer = max(ours, theirs, key=len)
        call = longer[min(len(ours), len(theirs))]
        return Place(call["layer"], f"{call['class']} is called on one backend only")
    return None


def step_and_row(ours: Nested, theirs: Nested, tolerance: float) -> tuple[int | None, int | None]:
    """(first step, first row there) of the mismatch of two structures of outputs (batch, steps, ...), or (None, None)."""
    a, b = leaves(ours), leaves(theirs)
    for place in a:
        x, y = a[place], b.get(place)
        if y is None or x.shape != y.shape or difference(x, y).relative <= tolerance or x.ndim < 1:
            continue
        wrong = mismatches(x, y, tolerance)
        has_steps = x.ndim > 2 or (x.ndim == 2 and x.dtype.kind in "iub")
        if not has_steps:
            rows = wrong.reshape(len(wrong), -1).any(axis=1)
            return None, int(np.argmax(rows)) if rows.any() else None
        grid: NDArray[np.bool_] = np.any(wrong.reshape(*wrong.shape[:2], -1), axis=2)
        if grid.any():
            step = int(np.argmax(grid.any(axis=0)))
            return step, int(np.argmax(grid[:, step]))
    return None, None


def mismatches(x: NDArray[Any], y: NDArray[Any], tolerance: float) -> NDArray[np.bool_]:
    """Where two arrays of one shape differ by more than `tolerance` times their largest value."""
    if x.dtype.kind in "iub":
        return x != y
    x, y = x.astype(np.float64), y.astype(np.float64)
    finite = np.isfinite(x) & np.isfinite(y)
    sizes = [np.abs(v[finite & (np.abs(v) < 1e30)]).max(initial=0.0) for v in (x, y)]
    with np.errstate(invalid="ignore"):
        return ~finite | (np.abs(x - y) > tolerance * max(sizes))


def layer_of(path: str) -> str:
    """The path of the layer that holds a weight."""
    return path.rpartition("/")[0] or path


def last_wrong_gradient(
    calls: Calls, ours: Mapping[str, NDArray[Any]], theirs: Mapping[str, NDArray[Any]], tolerance: float
) -> Place | None:
    """The layer, last in the order of the calls, with a weight whose gradient differs: a wrong gradient travels backwards.

    Args:
        calls: the recorded calls of one backend.
        ours, theirs: {path: gradient} with the same paths.
        tolerance: largest relative error.
    """
    floor = SHARE * max((float(np.max(np.abs(g), initial=0.0)) for g in ours.values()), default=0.0)
    errors = {path: difference(ours[path], theirs[path], path, floor).relative for path in ours}
    wrong = [path for path, error in errors.items() if error > tolerance]
    if not wrong:
        return None
    order = {call["layer"]: index for index, call in enumerate(calls)}
    last = max(wrong, key=lambda path: (order.get(layer_of(path), -1), errors[path]))
    kinds = {call["layer"]: call["class"] for call in calls}
    return Place(layer_of(last), kinds.get(layer_of(last), ""))


def first_wrong_step(ours: ArrayLike, theirs: ArrayLike, tolerance: float) -> int | None:
    """The first training step whose losses differ by more than `tolerance` times the largest loss, or None."""
    wrong = mismatches(np.asarray(ours), np.asarray(theirs), tolerance)
    return int(np.argmax(wrong)) if wrong.any() else None
