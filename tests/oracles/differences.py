"""Gradients by central differences in float64: (f(w + h) - f(w - h)) / 2h, good to about 1e-10 of the largest derivative."""

from collections.abc import Callable, Mapping

import numpy as np

STEP = 1e-5


def derivative(f: Callable[[dict], float], arrays: Mapping[str, np.ndarray], name: str, index: tuple[int, ...]) -> float:
    """The derivative of `f(arrays)` for the one entry `arrays[name][index]`; nothing in `arrays` is changed.

    A kink (relu at 0) within 1e-5 of the entry gives neither of its two one-sided derivatives: draw inputs at random.
    """
    value = np.array(arrays[name], np.float64)
    sides = []
    for step in (STEP, -STEP):
        moved = value.copy()
        moved[index] += step
        sides.append(f({**arrays, name: moved}))
    return float((sides[0] - sides[1]) / (2 * STEP))


def gradient(f: Callable[[dict], float], arrays: Mapping[str, np.ndarray], name: str) -> np.ndarray:
    """The derivative of `f(arrays)` for every entry of `arrays[name]`, in its shape."""
    shape = np.shape(arrays[name])
    return np.array([derivative(f, arrays, name, index) for index in np.ndindex(shape)]).reshape(shape)


def sample(f: Callable[[dict], float], arrays: Mapping[str, np.ndarray], name: str, count: int, seed: int = 0):
    """`(indices, derivatives)` of `count` distinct entries of `arrays[name]` (all of them where it has fewer).

    `indices` is a tuple of index arrays, so `g[indices]` picks the same entries out of a gradient `g`.
    """
    array = np.asarray(arrays[name])
    if array.ndim == 0:
        return (), np.array(derivative(f, arrays, name, ()))
    chosen = np.random.default_rng(seed).permutation(array.size)[:count]
    indices = np.unravel_index(chosen, array.shape)
    return indices, np.array([derivative(f, arrays, name, index) for index in zip(*indices, strict=True)])
