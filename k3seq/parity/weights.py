"""The weights of a case, drawn on the host: the same for every backend."""

import numpy as np

from k3seq.random.bits import Stream


def draw_weights(table, first, seed):
    """The weights of a case, by path, from the seed alone.

    Matrices are normal, of variance 1 over the inputs of a unit. Vectors stand a little off their first value, so that a bias
    that is left out shows. What is not trainable keeps its first value.
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


def unlike(weights, seed):
    """Weights a little off those given, {path: value}: a writer's own, so that a reader that kept what it had would be seen."""
    moved = {}
    for path, value in weights.items():
        moved[path] = value
        if value.dtype.kind == "f" and value.ndim:
            moved[path] = value + (Stream(seed, f"parity file {path}").normal(value.shape) / 20).astype(value.dtype)
    return moved
