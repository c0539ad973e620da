"""Checks on the host: what would be silent on one backend and an exception on another is the same UsageError on all of them."""

import numpy as np

from k3seq.errors import UsageError

_PLACES = {1: ("position",), 2: ("row", "step")}


def check_ids(ids, vocabulary_size, name="ids"):
    """Checks token ids.

    Args:
        ids: integer array or nested list of any rank.
        vocabulary_size: one more than the highest id.
        name: what they are called in the message.

    Returns:
        `ids` as a NumPy array.

    Raises:
        UsageError: they are not integers, or one is not in 0..vocabulary_size-1.
    """
    ids = _integers(ids, name)
    _refuse((ids < 0) | (ids >= vocabulary_size), ids, f"{name} in 0..{vocabulary_size - 1}")
    return ids


def check_labels(labels, classes, name="labels", weight=None):
    """Checks labels: integer class ids of any rank, or floating-point distributions `(..., classes)`, one-hot ones among them.

    Args:
        labels: array or nested list.
        classes: how many there are.
        name: what they are called in the message.
        weight: array of the shape of the class ids; labels of weight 0 may be anything. None weighs all.

    Returns:
        `labels` as a NumPy array.

    Raises:
        UsageError: an id is not in 0..classes-1; a distribution has another width, a negative or non-finite part, or a sum
            further than 1e-3 from 1; the shape of `weight` is another.
    """
    labels = np.asarray(labels)
    if np.issubdtype(labels.dtype, np.floating):
        if labels.ndim < 1 or labels.shape[-1] != classes:
            raise UsageError(f"Expected {name} of shape (..., {classes}). Received: shape {labels.shape}")
        sums = labels.sum(axis=-1)
        bad, shown = ~((labels >= 0).all(axis=-1) & (np.abs(sums - 1) <= 1e-3)), sums
        expected = f"{name} that are distributions, of sum 1 and without negative parts"
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


def check_lengths(lengths, steps, name="lengths", allow_empty=False):
    """Checks lengths.

    Args:
        lengths: integers `(batch,)`.
        steps: the most that a row can have.
        name: what they are called in the message.
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


def check_mask(mask, shape, name="mask"):
    """Checks a mask, True = keep.

    Args:
        mask: bool array or nested list.
        shape: what it must have; None stands for any size.
        name: what it is called in the message.

    Returns:
        `mask` as a NumPy array.

    Raises:
        UsageError: the dtype is not bool, or the shape is another.
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
