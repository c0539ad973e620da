"""Reader of the golden vectors in `golden_vectors/`, and the measure of error that tests use.

`index.json` lists the cases and `cases/<id>.npz` holds the arrays: `in.*` inputs, `w.*` weights, `f32.*` and `f64.*` results.
"""

import functools
import json
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest

FOLDER = Path(__file__).resolve().parent / "golden_vectors"
FILL = 1e30


@dataclass(frozen=True)
class Case:
    """One reference computation: `params` holds every argument that is not an array, `arrays` every array by full name."""

    id: str
    family: str
    params: dict
    precisions: tuple[str, ...]
    arrays: dict[str, np.ndarray]

    def __getitem__(self, name: str) -> np.ndarray:
        return self.arrays[name]

    def __contains__(self, name: str) -> bool:
        return name in self.arrays

    def group(self, prefix: str) -> dict[str, np.ndarray]:
        """The arrays under `prefix` (`"w"`, `"in"`, `"f64.grad"`, ...), named without it."""
        return {name.removeprefix(prefix + "."): a for name, a in self.arrays.items() if name.startswith(prefix + ".")}

    def ragged(self, name: str) -> list[list[int]]:
        """The rows of a ragged array stored as `<name>.values` and `<name>.row_splits`."""
        values, splits = self.arrays[f"{name}.values"], self.arrays[f"{name}.row_splits"]
        return [values[start:stop].tolist() for start, stop in zip(splits[:-1], splits[1:], strict=True)]


@functools.cache
def _index() -> dict[str, dict]:
    return {entry["id"]: entry for entry in json.loads((FOLDER / "index.json").read_text(encoding="utf-8"))["cases"]}


def case(id: str) -> Case:
    """Loads one case. Raises KeyError for an id that the vectors do not hold."""
    entry = _index()[id]
    with np.load(FOLDER / entry["file"], allow_pickle=False) as stored:
        arrays = {name: stored[name] for name in stored.files}
    return Case(entry["id"], entry["family"], entry["params"], tuple(entry["precisions"]), arrays)


def cases(family: str) -> list:
    """Parameters for `pytest.mark.parametrize`: the ids of a family.

    Raises KeyError for a family that the vectors do not hold, so that a misspelt name cannot pass as zero tests.
    """
    found = [entry["id"] for entry in _index().values() if entry["family"] == family]
    if not found:
        raise KeyError(f"Expected a golden family. Received: family={family!r}")
    return [pytest.param(id, id=id) for id in found]


def relative_error(a, b) -> float:
    """Largest |a - b| over largest |b|, where `b` is the reference.

    Infinity (so that no tolerance passes) where one has a NaN or an infinity that the other has not at the same place, or
    where `b` is all zero and `a` is not. Values past 1e30 are fills (the lowest finite number of a dtype) and count as
    infinities of their sign: as numbers they would make every other difference vanish. Raises ValueError on unlike shapes.
    """
    a, b = np.asarray(a, np.float64), np.asarray(b, np.float64)
    if a.shape != b.shape:
        raise ValueError(f"Expected arrays of one shape. Received: a.shape={a.shape}, b.shape={b.shape}")
    a, b = (np.where(np.abs(x) > FILL, np.copysign(np.inf, x), x) for x in (a, b))
    finite = np.isfinite(a) & np.isfinite(b)
    if not np.array_equal(a[~finite], b[~finite], equal_nan=True):
        return float("inf")
    difference = np.max(np.abs(a[finite] - b[finite]), initial=0.0)
    scale = np.max(np.abs(b[finite]), initial=0.0)
    if difference == 0.0:
        return 0.0
    return float("inf") if scale == 0.0 else float(difference / scale)
