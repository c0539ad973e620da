"""Checks of ids, labels, lengths and masks on the host: the same UsageError on every backend.

Without them one backend would raise an exception and another would compute wrong numbers.
"""

from typing import Any

import numpy as np

from k3seq.errors import UsageError
from k3seq.typing import ArrayLike, NDArray, Shape

_PLACES = {1: ("position",), 2: ("row", "step")}


def check_ids(ids: ArrayLike, vocabulary_size: int, name: str = "ids") -> NDArray[Any]:
    """Checks token ids.

    Args:
        ids: integer array or nested list of any rank.
        vocabulary_size: number of ids.
        name: their name in the message.

    Returns:
        `ids` as a NumPy array.

    Raises:
        UsageError: they are not integers, or one is not in 0..vocabulary_size-1.
    """
    ids = _integers(ids, name)
    _refuse((ids < 0) | (ids >= vocabulary_size), ids, f"{name} in 0..{vocabulary_size - 1}")
    return ids


def check_labels(labels: ArrayLike, classes: int, name: str = "labels", weight: ArrayLike | None = None) -> NDArray[Any]:
    """Checks labels: integer class ids of any rank, or floating-point distributions `(..., classes)` such as one-hot rows.

    Args:
        labels: array or nested list.
        classes: number of classes.
        name: their name in the message.
        weight: array of the shape of the class ids; labels of weight 0 are not checked. None checks all.

    Returns:
        `labels` as a NumPy array.

    Raises:
        UsageError: an id is not in 0..classes-1; a distribution has another width, a negative or non-finite entry, or a sum
            that differs from 1 by more than 1e-3; `weight` has another shape.
    """
    labels = np.asarray(labels)
    if np.issubdtype(labels.dtype, np.floating):
        if labels.ndim < 1 or labels.shape[-1] != classes:
            raise UsageError(f"Expected {name} of shape (..., {classes}). Received: shape {labels.shape}")
        sums = labels.sum(axis=-1)
        bad, shown = ~((labels >= 0).all(axis=-1) & (np.abs(sums - 1) <= 1e-3)), sums
        expected = f"{name} that are distributions, of sum 1 and without negative entries"
    else:
        shown = labels = _integers(labels, name)
        bad, expected = (labels < 0) | (labels >= classes), f"{name} in 0..{classes - 1}"
    if weight is not None:
        weight = np.asarray(weight)
        if weight.shape != bad.shape:
            raise UsageError(f"Expected {name} weights of shape {bad.shape}. Received: shape {weight.shape}")
        bad = bad & (weight != 0)
    _refuse(bad, shown, expected)
    return labels


def check_lengths(lengths: ArrayLike, steps: int, name: str = "lengths", allow_empty: bool = False) -> NDArray[Any]:
    """Checks lengths.

    Args:
        lengths: integers `(batch,)`.
        steps: largest length.
        name: their name in the message.
        allow_empty: whether a length may be 0.

    Returns:
        `lengths` as a NumPy array.

    Raises:
        UsageError: they are not such integers, or one is not in 1..steps (0..steps).
    """
    lengths = _integers(lengths, name)
    if lengths.ndim != 1:
        raise UsageError(f"Expected {name} of shape (batch,). Received: shape {lengths.shape}")
    low = 0 if allow_empty else 1
    bad = np.flatnonzero((lengths < low) | (lengths > steps))
    if bad.size:
        raise UsageError(f"Expected {name} in {low}..{steps}. Received: {lengths[bad[0]]} at row {bad[0]}")
    return lengths


def check_mask(mask: ArrayLike, shape: Shape, name: str = "mask") -> NDArray[np.bool_]:
    """Checks a mask, where True means keep.

    Args:
        mask: bool array or nested list.
        shape: the expected shape; None stands for any size.
        name: its name in the message.

    Returns:
        `mask` as a NumPy array.

    Raises:
        UsageError: it has another dtype than bool, or another shape.
    """
    mask = np.asarray(mask)
    if mask.dtype != np.bool_:
        raise UsageError(f"Expected {name} of bool, True = keep. Received: {mask.dtype}")
    if mask.ndim != len(shape) or any(size not in (None, found) for size, found in zip(shape, mask.shape, strict=True)):
        raise UsageError(f"Expected {name} of shape {tuple(shape)}. Received: shape {mask.shape}")
    return mask


def _integers(values, name):
    try:
        values = np.asarray(values)
    except ValueError as error:
        raise UsageError(f"Expected {name} to be a rectangular array. Received: rows of other lengths") from error
    if not np.issubdtype(values.dtype, np.integer) and values.size:
        raise UsageError(f"Expected {name} to be integers. Received: {values.dtype}")
    return values


def _refuse(bad, shown, expected):
    if not bad.any():
        return
    place = np.argwhere(bad)[0] if bad.ndim else ()
    words = _PLACES.get(bad.ndim)
    where = (
        ", ".join(f"{word} {at}" for word, at in zip(words, place, strict=True)) if words else f"index {tuple(map(int, place))}"
    )
    raise UsageError(f"Expected {expected}. Received: {shown[tuple(place)]} at {where}")
