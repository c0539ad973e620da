"""Widths for batches of like length: few shapes, little padding."""

import numpy as np

from k3seq.errors import UsageError


def widths(lengths, buckets):
    """The widths of the buckets, from the narrowest to the widest.

    Args:
        lengths: int array `(examples, 2)`, source and target lengths.
        buckets: None, int or list, as of `Batches`.

    Returns:
        list of (source width, target width).

    Raises:
        UsageError: `buckets` is none of these, or has numbers below 1.
    """
    if buckets is None:
        return [tuple(map(int, lengths.max(axis=0)))]
    if isinstance(buckets, int):
        if buckets < 1:
            raise UsageError(f"Expected buckets of at least 1. Received: buckets={buckets}")
        longer = lengths.max(axis=1)
        # Each of a bucket's two widths is the longest of its own side: phonemes are fewer than letters.
        found = [tuple(map(int, lengths[longer <= cut].max(axis=0))) for cut in least_padding(longer, buckets)]
        return list(dict.fromkeys(found))
    pairs = [(bucket, bucket) if isinstance(bucket, int) else tuple(map(int, bucket)) for bucket in buckets]
    if not pairs or any(len(pair) != 2 or min(pair) < 1 for pair in pairs):
        raise UsageError(f"Expected widths, or pairs of widths, of at least 1. Received: buckets={buckets}")
    return sorted(set(pairs))


def fitting(lengths, buckets):
    """The first bucket that holds each example: int array `(examples,)`. Raises UsageError where none does."""
    fits = (lengths[:, None, :] <= np.array(buckets)).all(axis=2)
    if not fits.any(axis=1).all():
        number = int(np.flatnonzero(~fits.any(axis=1))[0])
        source, target = lengths[number]
        raise UsageError(
            f"Expected examples that fit into buckets {buckets}. Received: ({source}, {target}) in example {number}"
        )
    return fits.argmax(axis=1)


def least_padding(lengths, count):
    """At most `count` widths out of `lengths`, rising, that hold every row with the fewest cells in all.

    Exact, by dynamic programming over the distinct lengths: cost[i] is what the rows up to the i-th length take at best.
    """
    distinct, rows = np.unique(lengths, return_counts=True)
    below = np.concatenate([[0], np.cumsum(rows)])
    cost = np.concatenate([[0], distinct * below[1:]])
    starts = []
    for _ in range(min(count, len(distinct)) - 1):
        # One bucket more: it holds the lengths start..end-1, those below `start` being held by the buckets before it.
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
