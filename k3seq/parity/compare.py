"""The error of two results, and which weights of two backends belong together. NumPy only.

The error of an array is its largest difference divided by its largest value. NaN and infinity never pass, not even where both
sides have them. Integers and bools are equal or not. A value beyond 1e30 is a mask's fill (a dtype's lowest finite number).
Fills must be at the same places. They do not count as the largest value, because any other difference would vanish beside them.
"""

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from k3seq.typing import ArrayLike, Json, NDArray, Nested

LARGEST = 1e30
FILL = {"float16": 6.5e4}  # its largest number is 65504
# For gradients and weights. An array whose true value is zero (the gradient of a bias before a normalization) holds rounding
# errors only, as large as the terms that cancel. So an array counts as at least this share of the largest array.
SHARE = 1e-2
# A table of weights: {"path", "shape", "dtype", "trainable"} of each weight, in order.
Table = Sequence[Mapping[str, Json]]


@dataclass(frozen=True)
class Difference:
    """`relative` and `absolute` error, the `place` of the array, and a `message` for other shapes, NaN and infinity."""

    relative: float = 0.0
    absolute: float = 0.0
    place: str = ""
    message: str = ""


def _infinite(place: str, message: str) -> Difference:
    return Difference(np.inf, np.inf, place, message)


def leaves(value: Nested, place: str = "") -> dict[str, NDArray[Any]]:
    """A nested structure as {place: array}; None has no place."""
    if isinstance(value, dict):
        items = value.items()
    elif isinstance(value, list | tuple):
        items = enumerate(value)
    else:
        return {} if value is None else {place: np.asarray(value)}
    return {k: v for key, part in items for k, v in leaves(part, f"{place}/{key}" if place else str(key)).items()}


def compare(a: Nested, b: Nested, share: float = 0.0, dtype: str = "float32") -> Difference:
    """The largest `Difference` of two nested structures of arrays.

    Args:
        a, b: nested dicts and lists of arrays.
        share: see `SHARE`.
        dtype: of the run, for its fill value.
    """
    a, b = leaves(a), leaves(b)
    if list(a) != list(b):
        only = sorted(set(a) ^ set(b)) or list(a)
        return _infinite(only[0], f"Expected the same structure. Received: {list(a)} and {list(b)}")
    floor = share * max((_largest(x, dtype) for x in (*a.values(), *b.values())), default=0.0)
    found = [difference(a[place], b[place], place, floor, dtype) for place in a]
    return max(found, key=lambda one: one.relative, default=Difference())


def difference(a: ArrayLike, b: ArrayLike, place: str = "", floor: float = 0.0, dtype: str = "float32") -> Difference:
    """The `Difference` of two arrays, relative to their largest value or to `floor`, whichever is larger."""
    a, b = np.asarray(a), np.asarray(b)
    if a.shape != b.shape:
        return _infinite(place, f"Expected the same shapes. Received: {a.shape} and {b.shape}")
    if (a.dtype.kind in "iub") != (b.dtype.kind in "iub"):
        return _infinite(place, f"Expected the same kind of numbers. Received: {a.dtype} and {b.dtype}")
    if a.dtype.kind in "iub":
        unequal = int(np.sum(a != b))
        size = float(np.max(np.abs(a.astype(np.float64) - b.astype(np.float64)), initial=0.0))
        return Difference(np.inf, size, place, f"{unequal} of {a.size} integers differ") if unequal else Difference(place=place)
    a, b = a.astype(np.float64), b.astype(np.float64)
    if not (np.isfinite(a).all() and np.isfinite(b).all()):
        kinds = [f"{int((~np.isfinite(x)).sum())} of {x.size}" for x in (a, b)]
        return _infinite(place, f"Expected finite numbers. Received: {kinds[0]} and {kinds[1]} not finite")
    fills = [np.where(np.abs(x) >= FILL.get(dtype, LARGEST), np.sign(x), 0.0) for x in (a, b)]
    if not np.array_equal(fills[0], fills[1]):
        return _infinite(place, f"{int(np.sum(fills[0] != fills[1]))} masked places differ")
    distance = np.abs(np.where(fills[0] == 0, a, 0.0) - np.where(fills[0] == 0, b, 0.0))
    absolute = float(np.max(distance, initial=0.0))
    scale = max(floor, _largest(a, dtype), _largest(b, dtype))
    return Difference(absolute / scale if absolute else 0.0, absolute, place)


def _largest(x: NDArray[Any], dtype: str) -> float:
    if x.dtype.kind in "iub" or not x.size:
        return 0.0
    size = np.abs(x.astype(np.float64))
    return float(np.max(np.where(np.isfinite(size) & (size < FILL.get(dtype, LARGEST)), size, 0.0)))


def renumbered(paths: Iterable[str]) -> list[str]:
    """Paths whose automatic names (`dense_7`) are numbered from 0, in the order in which the names come."""
    seen: dict[tuple[str, str], dict[str, int]] = {}
    found = []
    for path in paths:
        parts: list[str] = []
        for part in path.split("/"):
            base = re.sub(r"_\d+$", "", part)
            numbers = seen.setdefault(("/".join(parts), base), {})
            parts.append(f"{base}_{numbers.setdefault(part, len(numbers))}")
        found.append("/".join(parts))
    return found


def paired(a: Table, b: Table) -> dict[str, str] | None:
    """{path in a: path in b} of two tables of weights, or None where they cannot be paired.

    Weights are paired by path. Where Keras numbered the names and the shapes are equal, they are paired by order.
    """
    ours, theirs = ([row["path"] for row in table] for table in (a, b))
    if len(set(ours)) == len(ours) and set(ours) == set(theirs):
        return {path: path for path in ours}
    equal = renumbered(ours) == renumbered(theirs) and [row["shape"] for row in a] == [row["shape"] for row in b]
    return dict(zip(ours, theirs, strict=True)) if equal else None


def parameters(a: Table, b: Table) -> Difference:
    """The `Difference` of two tables of weights: order of paths, shapes, dtypes, trainable or not, and so the counts."""
    counts = [sum(int(np.prod(row["shape"], dtype=np.int64)) for row in table) for table in (a, b)]
    ours, theirs = ([row["path"] for row in table] for table in (a, b))
    if len(a) != len(b):
        only = [path for path in (*ours, *theirs) if (path in ours) != (path in theirs)] or ["?"]
        received = f"{len(a)} ({counts[0]}) and {len(b)} ({counts[1]}), only one has {only[0]}"
        return _infinite(only[0], f"Expected the same number of weights. Received: {received}")
    numbered = ours != theirs and renumbered(ours) == renumbered(theirs)
    for one, other in zip(a, b, strict=True):
        for key in ("path", "shape", "dtype", "trainable"):
            if one[key] != other[key] and not (key == "path" and numbered):
                return _infinite(one["path"], f"Expected the same {key}. Received: {one[key]} and {other[key]}")
    note = ", names numbered by Keras, paired by order" if numbered else ""
    return Difference(message=f"{len(a)} weights, {counts[0]} numbers{note}")
