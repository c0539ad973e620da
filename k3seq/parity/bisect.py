"""Where two runs part: the first layer in the order of the calls, the first step and the first row. NumPy alone."""

from dataclasses import dataclass

import numpy as np

from k3seq.parity.compare import SHARE, compare, difference, leaves, unnumbered


@dataclass(frozen=True)
class Place:
    """A layer's path and class, and of a sequence the first step and the first row there, or None."""

    layer: str
    kind: str = ""
    step: int | None = None
    row: int | None = None

    def __str__(self):
        found = f"{self.layer} ({self.kind})" if self.kind else self.layer
        if self.step is not None:
            found += f", step {self.step}"
        return found if self.row is None else f"{found}, row {self.row}"


def first_part(ours, theirs, tolerance):
    """The first call that got equal arguments and gave unlike outputs, as a `Place`; None where there is none.

    A layer made of layers is named when none of those inside parts: the fault is in its own code.

    Args:
        ours, theirs: what `trace.trace` recorded on two backends. tolerance: largest relative error.
    """
    names = [unnumbered([call["layer"] for call in calls]) for calls in (ours, theirs)]
    for index, (a, b) in enumerate(zip(ours, theirs, strict=False)):
        if names[0][index] != names[1][index]:
            return Place(a["layer"], f"{a['class']} here, {b['layer']} there")
        given = compare([a["inputs"], a["arguments"]], [b["inputs"], b["arguments"]])
        found = compare(a["outputs"], b["outputs"])
        if given.relative <= tolerance < found.relative:
            return Place(a["layer"], a["class"], *step_and_row(a["outputs"], b["outputs"], tolerance))
    if len(ours) != len(theirs):
        longer = max(ours, theirs, key=len)
        call = longer[min(len(ours), len(theirs))]
        return Place(call["layer"], f"{call['class']} is called on one backend only")
    return None


def step_and_row(ours, theirs, tolerance):
    """(first step, first row there) where two structures of outputs (batch, steps, ...) part; None where there is none."""
    a, b = leaves(ours), leaves(theirs)
    for place in a:
        x, y = a[place], b.get(place)
        if y is None or x.shape != y.shape or difference(x, y).relative <= tolerance or x.ndim < 1:
            continue
        apart = unlike(x, y, tolerance)
        steps = x.ndim > 2 or (x.ndim == 2 and x.dtype.kind in "iub")
        if not steps:
            rows = apart.reshape(len(apart), -1).any(axis=1)
            return None, int(np.argmax(rows)) if rows.any() else None
        grid = apart.reshape(*apart.shape[:2], -1).any(axis=2)
        if grid.any():
            step = int(np.argmax(grid.any(axis=0)))
            return step, int(np.argmax(grid[:, step]))
    return None, None


def unlike(x, y, tolerance):
    """Where two arrays of one shape differ by more than `tolerance` of their largest value."""
    if x.dtype.kind in "iub":
        return x != y
    x, y = x.astype(np.float64), y.astype(np.float64)
    finite = np.isfinite(x) & np.isfinite(y)
    sizes = [np.abs(v[finite & (np.abs(v) < 1e30)]).max(initial=0.0) for v in (x, y)]
    with np.errstate(invalid="ignore"):
        return ~finite | (np.abs(x - y) > tolerance * max(sizes))


def layer_of(path):
    """The layer that holds the weight of a path."""
    return path.rpartition("/")[0] or path


def last_gradient(calls, ours, theirs, tolerance):
    """The layer, last in the order of the calls, with a weight whose gradient differs: a gradient's error travels backwards.

    Args:
        calls: of `trace.trace`. ours, theirs: {path: gradient}, under the same paths.
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


def worst_weight(ours, theirs):
    """The path of the weight that differs most, under the same paths."""
    return compare(ours, theirs, SHARE).place


def first_step(ours, theirs, tolerance):
    """The first training step whose losses differ by more than `tolerance` of the largest loss, or None."""
    apart = unlike(np.asarray(ours), np.asarray(theirs), tolerance)
    return int(np.argmax(apart)) if apart.any() else None
