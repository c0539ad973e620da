"""The weights of a case, drawn on the host, so that every backend receives the same ones."""

from collections.abc import Mapping
from typing import Any

import numpy as np

from k3seq.parity.compare import Table
from k3seq.random.bits import Stream
from k3seq.typing import NDArray

Weights = dict[str, NDArray[Any]]


def draw_weights(table: Table, first: Mapping[str, NDArray[Any]], seed: int) -> Weights:
    """The weights of a case by path, from the seed.

    Matrices are normal, with a variance of 1 over the number of inputs of a unit. Vectors are their initial value plus a little
    noise, so that a missing bias shows. Weights that are not trainable keep their initial value.

    Args:
        table: of the weights. first: {path: initial value}. seed: of the case.
    """
    drawn = {}
    for row in table:
        path, shape = row["path"], tuple(row["shape"])
        value = first[path]
        if row["trainable"] and value.dtype.kind == "f":
            noise = Stream(seed, f"parity weight {path}").normal(shape).astype(value.dtype)
            fan_in = int(np.prod(shape[:-1], dtype=np.int64))
            value = noise * np.asarray(fan_in**-0.5, value.dtype) if len(shape) > 1 else value + noise / 10
        drawn[path] = value
    return drawn


def perturbed(weights: Mapping[str, NDArray[Any]], seed: int) -> Weights:
    """The weights plus a little noise. Each writer of a file has its own, so that a reader that loads nothing is noticed."""
    moved = {}
    for path, value in weights.items():
        moved[path] = value
        if value.dtype.kind == "f" and value.ndim:
            moved[path] = value + (Stream(seed, f"parity file {path}").normal(value.shape) / 20).astype(value.dtype)
    return moved
