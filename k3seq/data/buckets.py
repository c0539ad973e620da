"""Widths for batches of similar length: few shapes, little padding."""

import itertools
from collections.abc import Sequence
from typing import Any

import numpy as np

from k3seq import arguments
from k3seq.errors import UsageError
from k3seq.typing import NDArray


def widths(lengths: NDArray[Any], buckets: int | Sequence[int | tuple[int, int]] | None) -> list[tuple[int, int]]:
    """The widths of the buckets, from the narrowest to the widest.

    Args:
        lengths: int array `(examples, 2)`, source and target lengths.
        buckets: None, int or list, as in `Batches`.

    Returns:
        list of (source width, target width).

    Raises:
        UsageError: `buckets` is something else, or has a number below 1.
    """
    if buckets is None:
        return [_longest(lengths)]
    if isinstance(buckets, bytes | str) or not isinstance(buckets, Sequence):
        arguments.positive(buckets=buckets)
        count = int(buckets)
        longer = lengths.max(axis=1)
        # A bucket has a width for each side, because one side may be shorter, as phonemes are than letters.
        found = [_longest(lengths[longer <= cut]) for cut in least_padding(longer, count)]
        return list(dict.fromkeys(found))
    pairs = [bucket if isinstance(bucket, list | tuple) else (bucket, bucket) for bucket in buckets]
    if not pairs or any(len(pair) != 2 for pair in pairs):
        raise UsageError(f"Expected buckets to be widths, or pairs of widths. Received: buckets={buckets!r}")
    for width in itertools.chain.from_iterable(pairs):
        arguments.positive(buckets=width)
    return sorted({(int(source), int(target)) for source, target in pairs})


def fitting(lengths: NDArray[Any], buckets: Sequence[tuple[int, int]]) -> NDArray[Any]:
    """The first bucket that holds each example: int array `(examples,)`. Raises UsageError where none does."""
    fits = np.asarray((lengths[:, None, :] <= np.array(buckets)).all(axis=2))
    if not fits.any(axis=1).all():
        number = int(np.flatnonzero(~fits.any(axis=1))[0])
        source, target = lengths[number]
        raise UsageError(
            f"Expected examples that fit into buckets {buckets}. Received: ({source}, {target}) in example {number}"
        )
    return fits.argmax(axis=1)


def least_padding(lengths: NDArray[Any], count: int) -> list[int]:
    """At most `count` of the lengths, in rising order, as widths that hold every row with the fewest cells in total.

    Dynamic programming over the distinct lengths: cost[i] is the minimum number of cells of the rows up to the i-th length.
    """
    distinct, rows = np.unique(lengths, return_counts=True)
    below = np.concatenate([[0], np.cumsum(rows)])
    cost = np.concatenate([[0], distinct * below[1:]])
    starts = []
    for _ in range(min(count, len(distinct)) - 1):
        # One bucket more holds the lengths start..end-1; the buckets before it hold the lengths below `start`.
        choices = [cost[:end] + distinct[end - 1] * (below[end] - below[:end]) for end in range(1, len(distinct) + 1)]
        starts.append([int(choice.argmin()) for choice in choices])
        cost = np.concatenate([[0], [choice.min() for choice in choices]])
    cuts, end = [], len(distinct)
    for chosen in reversed([[0] * len(distinct), *starts]):
        if not end:
            break
        cuts.append(int(distinct[end - 1]))
        end = chosen[end - 1]
    return cuts[::-1]


def _longest(lengths):
    """(source width, target width) that hold these lengths."""
    source, target = lengths.max(axis=0)
    return int(source), int(target)
