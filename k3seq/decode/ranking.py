"""The best of many scores, with the same choice among equals on every backend, and the entries at their places."""

from keras import ops

from k3seq.typing import Tensor

FEW = 16
CHUNK = 64


def first_best(scores: Tensor, count: int) -> tuple[Tensor, Tensor]:
    """The `count` largest scores of each row, largest first; of equals, the one with the lowest index first.

    `ops.top_k` breaks ties differently on torch, and sorting beams times vocabulary costs more than a step of the model.
    Rows are therefore cut into chunks: the `count` best are in the `count` chunks with the largest scores.

    Args:
        scores: (b, n) float, n >= count; -inf is a score like any other.
        count: int.

    Returns:
        (scores (b, count), indices (b, count) int32).
    """
    rows, size = ops.shape(scores)
    chunks = -(-size // CHUNK)
    if count * CHUNK * 4 > size:
        return _best_of_few(scores, count)
    if chunks * CHUNK > size:
        scores = ops.pad(scores, [[0, 0], [0, chunks * CHUNK - size]], constant_values=float("-inf"))
    largest = ops.max(ops.reshape(scores, (rows, chunks, CHUNK)), axis=-1)
    # Sorted, so that of equal scores the lower index still comes first.
    chosen = ops.sort(_best_of_few(largest, count)[1], axis=-1)
    places = chosen + ops.arange(rows, dtype="int32")[:, None] * chunks
    rest = ops.take(ops.reshape(scores, (rows * chunks, CHUNK)), ops.reshape(places, (-1,)), axis=0)
    best, indices = _best_of_few(ops.reshape(rest, (rows, count * CHUNK)), count)
    chunk = ops.take_along_axis(chosen, indices // CHUNK, axis=1)
    return best, chunk * CHUNK + indices % CHUNK


def _best_of_few(scores, count):
    """`first_best` by a sort, or by finding the largest score `count` times."""
    if count > FEW:
        indices = ops.cast(ops.argsort(-scores, axis=-1)[:, :count], "int32")
        return pick(scores, indices), indices
    positions = ops.arange(scores.shape[1], dtype="int32")[None, :]
    lowest = float("-inf")
    rest, best, indices = scores, [], []
    taken = ops.cast(ops.zeros_like(scores[:, :count]), "int32")
    for _ in range(count):
        value = ops.max(rest, axis=1, keepdims=True)
        # Once only -inf is left, entries already taken look like the others.
        free = ops.cast(ops.argmin(taken, axis=1, keepdims=True), "int32")
        index = ops.where(value == lowest, free, first_largest(rest, value)[:, None])
        best.append(value)
        indices.append(index)
        chosen = positions == index
        rest = ops.where(chosen, lowest, rest)
        taken = ops.where(chosen[:, :count], 1, taken)
    return ops.concatenate(best, axis=1), ops.concatenate(indices, axis=1)


def first_largest(scores: Tensor, largest: Tensor | None = None) -> Tensor:
    """The index of the largest entry along the last axis, the lowest index among equals.

    `ops.argmax` returns 0 on TensorFlow, and in float64 on JAX, where the largest entry is the lowest finite number.

    Args:
        scores: (..., n) float. `-inf` is allowed.
        largest: (..., 1), the largest entries, where they are known already.

    Returns:
        (...) int32.
    """
    size = scores.shape[-1]
    if 0 in tuple(scores.shape):  # Keras on torch refuses the largest of nothing
        return ops.zeros(scores.shape[:-1], "int32")
    largest = ops.max(scores, axis=-1, keepdims=True) if largest is None else largest
    positions = ops.arange(size, dtype="int32")
    return ops.min(ops.where(scores == largest, positions, size - 1), axis=-1)


def pick(table: Tensor, indices: Tensor) -> Tensor:
    """Entries of each row: `table (..., n, *rest)`, `indices (..., m)` int in 0..n-1 -> `(..., m, *rest)`.

    Like `ops.take_along_axis`, but with one index per entry instead of one per number, which is faster on every backend.
    """
    rank = len(indices.shape)
    shape = ops.shape(table)
    size = shape[rank - 1]
    flat = ops.reshape(indices, (-1, ops.shape(indices)[-1]))
    flat = flat + size * ops.arange(ops.shape(flat)[0], dtype="int32")[:, None]
    found = ops.take(ops.reshape(table, (-1, *shape[rank:])), flat, axis=0)
    return ops.reshape(found, (*ops.shape(indices), *shape[rank:]))
