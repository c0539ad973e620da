"""How far two results are from each other, and which weights belong together. NumPy alone.

The error of an array is its largest difference over its largest value. NaN and infinity never pass, also where both have them;
integers and bools are equal or not. A value past 1e30 is a fill (the lowest finite number of a dtype, as masks use it): it must
stand at the same places, and does not count as a value, or every other difference would vanish beside it.
"""

import re
from dataclasses import dataclass

import numpy as np

LARGEST = 1e30
FILL = {"float16": 6.5e4}  # its largest number is 65504
# Of gradients and weights: one that is zero in truth (a bias before a normalisation) holds rounding alone, and rounding is as
# large as the terms that cancel. An array's largest value counts as at least this share of the largest of all arrays.
SHARE = 1e-2


@dataclass(frozen=True)
class Difference:
    """`relative` and `absolute` error, `place` of the array and `message` where they are not numbers: unlike shapes, NaN."""

    relative: float = 0.0
    absolute: float = 0.0
    place: str = ""
    message: str = ""


def leaves(value, place=""):
    """A nested structure as {place: array}; None has no place."""
    if isinstance(value, dict):
        items = value.items()
    elif isinstance(value, list | tuple):
        items = enumerate(value)
    else:
        return {} if value is None else {place: np.asarray(value)}
    return {k: v for key, part in items for k, v in leaves(part, f"{place}/{key}" if place else str(key)).items()}


def compare(a, b, share=0.0, dtype="float32"):
    """The worst `Difference` of two nested structures of arrays.

    Args:
        a, b: nested dicts and lists of arrays. share: see `SHARE`. dtype: of the run, for its fill.
    """
    a, b = leaves(a), leaves(b)
    if list(a) != list(b):
        only = sorted(set(a) ^ set(b)) or list(a)
        return Difference(np.inf, np.inf, only[0], f"Expected the same structure. Received: {list(a)} and {list(b)}")
    floor = share * max((_largest(x, dtype) for x in (*a.values(), *b.values())), default=0.0)
    found = [difference(a[place], b[place], place, floor, dtype) for place in a]
    return max(found, key=lambda one: one.relative, default=Difference())


def difference(a, b, place="", floor=0.0, dtype="float32"):
    """The `Difference` of two arrays; values are scaled by their largest or by `floor`, whichever is larger."""
    a, b = np.asarray(a), np.asarray(b)
    if a.shape != b.shape:
        return Difference(np.inf, np.inf, place, f"Expected the same shapes. Received: {a.shape} and {b.shape}")
    if (a.dtype.kind in "iub") != (b.dtype.kind in "iub"):
        return Difference(np.inf, np.inf, place, f"Expected the same kind of numbers. Received: {a.dtype} and {b.dtype}")
    if a.dtype.kind in "iub":
        unlike = int(np.sum(a != b))
        size = float(np.max(np.abs(a.astype(np.float64) - b.astype(np.float64)), initial=0.0))
        return Difference(np.inf, size, place, f"{unlike} of {a.size} integers differ") if unlike else Difference(place=place)
    a, b = a.astype(np.float64), b.astype(np.float64)
    if not (np.isfinite(a).all() and np.isfinite(b).all()):
        kinds = [f"{int((~np.isfinite(x)).sum())} of {x.size}" for x in (a, b)]
        return Difference(np.inf, np.inf, place, f"Expected finite numbers. Received: {kinds[0]} and {kinds[1]} not finite")
    fills = [np.where(np.abs(x) >= FILL.get(dtype, LARGEST), np.sign(x), 0.0) for x in (a, b)]
    if not np.array_equal(*fills):
        return Difference(np.inf, np.inf, place, f"{int(np.sum(fills[0] != fills[1]))} masked places differ")
    apart = np.abs(np.where(fills[0] == 0, a, 0.0) - np.where(fills[0] == 0, b, 0.0))
    absolute = float(np.max(apart, initial=0.0))
    scale = max(floor, _largest(a, dtype), _largest(b, dtype))
    return Difference(absolute / scale if absolute else 0.0, absolute, place)


def _largest(x, dtype):
    if x.dtype.kind in "iub" or not x.size:
        return 0.0
    size = np.abs(x.astype(np.float64))
    return float(np.max(np.where(np.isfinite(size) & (size < FILL.get(dtype, LARGEST)), size, 0.0)))


def unnumbered(paths):
    """Paths with the numbers of automatic names (`dense_7`) counted anew, in the order in which the names come."""
    seen, found = {}, []
    for path in paths:
        parts = []
        for part in path.split("/"):
            base = re.sub(r"_\d+$", "", part)
            numbers = seen.setdefault(("/".join(parts), base), {})
            parts.append(f"{base}_{numbers.setdefault(part, len(numbers))}")
        found.append("/".join(parts))
    return found


def paired(a, b):
    """{path in a: path in b} of two tables of weights, or None where they cannot be paired.

    By path; by order where Keras numbered the names, the shapes being equal.

    Args:
        a, b: lists of {"path", "shape", ...}.
    """
    ours, theirs = ([row["path"] for row in table] for table in (a, b))
    if len(set(ours)) == len(ours) and set(ours) == set(theirs):
        return {path: path for path in ours}
    alike = unnumbered(ours) == unnumbered(theirs) and [row["shape"] for row in a] == [row["shape"] for row in b]
    return dict(zip(ours, theirs, strict=True)) if alike else None


def parameters(a, b):
    """The `Difference` of two tables of weights: paths in their order, shapes, dtypes, trainable or not, and so the counts.

    Args:
        a, b: lists of {"path", "shape", "dtype", "trainable"}.
    """
    counts = [sum(int(np.prod(row["shape"], dtype=np.int64)) for row in table) for table in (a, b)]
    if len(a) != len(b):
        ours, theirs = ([row["path"] for row in table] for table in (a, b))
        only = [path for path in (*ours, *theirs) if (path in ours) != (path in theirs)] or ["?"]
        what = (
            f"Expected as many weights. Received: {len(a)} ({counts[0]}) and {len(b)} ({counts[1]}), the first alone {only[0]}"
        )
        return Difference(np.inf, np.inf, only[0], what)
    paths = [[row["path"] for row in table] for table in (a, b)]
    numbered = paths[0] != paths[1] and unnumbered(paths[0]) == unnumbered(paths[1])
    for one, other in zip(a, b, strict=True):
        for key in ("path", "shape", "dtype", "trainable"):
            if one[key] != other[key] and not (key == "path" and numbered):
                what = f"Expected the same {key}. Received: {one[key]} and {other[key]}"
                return Difference(np.inf, np.inf, one["path"], what)
    told = ", names numbered by Keras, paired by order" if numbered else ""
    return Difference(message=f"{len(a)} weights, {counts[0]} numbers{told}")
