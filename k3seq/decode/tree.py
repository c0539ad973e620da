"""The tree of a beam search: the tokens of each step, and the beam of the previous step that each of them continues.

Arrays are time major, `(t, b, k)`. The names, arguments and results are those of `tfa.seq2seq`.
"""

import math
from typing import Any

import numpy as np
from keras import ops, tree

from k3seq import backend
from k3seq.decode.ranking import pick
from k3seq.errors import UsageError
from k3seq.typing import Nested, Tensor

INVALID = -1


def ancestors(parent_ids: Tensor, lengths: Tensor) -> Tensor:
    """The beam of each step on the path to each beam of the last step.

    The path is not walked back step by step: the maps from a beam to its parent are composed in pairs, pairs of pairs, and so
    on, which takes log2(t) gathers and needs no loop under jit.

    Args:
        parent_ids: (t, b, k) int, the beam of the step before that each beam continues.
        lengths: (b,) int, steps of each row; its paths begin at its last step, and have no meaning after it.

    Returns:
        (t, b, k) int32; `INVALID` where the path has passed over a parent that is no beam.
    """
    steps, width = parent_ids.shape[0], parent_ids.shape[2]
    parent_ids = ops.cast(parent_ids, "int32")
    beams = ops.zeros_like(parent_ids) + ops.arange(width, dtype="int32")
    time = ops.arange(ops.shape(parent_ids)[0], dtype="int32")[:, None, None]
    continued = time + 1 < ops.cast(lengths, "int32")[None, :, None]
    known = ops.where(ops.logical_and(parent_ids >= 0, parent_ids < width), parent_ids, INVALID)

    def later(maps, shift):
        """`maps` from `shift` steps later on; past the last step every beam is its own ancestor."""
        return ops.concatenate([maps[shift:], beams[:shift]], axis=0) if steps is None or shift < steps else beams

    maps, shift = ops.where(continued, later(known, 1), beams), 1
    while shift < (steps or 2**31):
        following = later(maps, shift)
        composed = pick(maps, ops.maximum(following, 0))
        maps, shift = ops.where(following == INVALID, INVALID, composed), 2 * shift
    return maps


def gather_tree(step_ids: Tensor, parent_ids: Tensor, max_sequence_lengths: Tensor, end_token: Any) -> Tensor:
    """The tokens of every beam, read back along its parents from the last step of its row.

    Args:
        step_ids: (t, b, k) int, the tokens that each step chose.
        parent_ids: (t, b, k) int, the beam of the step before that each of them continues.
        max_sequence_lengths: (b,) int, steps of each row; more than `t` counts as `t`.
        end_token: int; it fills what lies after the first end token of a beam and after the length of its row.

    Returns:
        (t, b, k) int32. Where a parent is no beam: under jit, -1 before it.

    Raises:
        UsageError: the shapes do not fit; outside jit, a parent on the way is no beam.
    """
    step_ids, parent_ids = (ops.cast(ids, "int32") for ids in (step_ids, parent_ids))
    lengths = ops.minimum(ops.cast(max_sequence_lengths, "int32"), ops.shape(step_ids)[0])
    _check_shapes(step_ids, parent_ids, lengths)
    path = ancestors(parent_ids, lengths)
    time = ops.arange(ops.shape(step_ids)[0], dtype="int32")[:, None, None]
    inside = time < lengths[None, :, None]
    invalid = ops.logical_and(inside, path == INVALID)
    _refuse_invalid(invalid)
    ids = ops.where(invalid, INVALID, pick(step_ids, ops.maximum(path, 0)))
    ended = ops.cast(ops.logical_and(inside, ids == end_token), "int32")
    before_end = ops.cumsum(ended, axis=0) - ended == 0
    return ops.where(ops.logical_and(inside, before_end), ids, ops.cast(end_token, "int32"))


def gather_tree_from_array(t: Nested, parent_ids: Tensor, sequence_length: Tensor | None) -> Tensor:
    """Reorders an array of per-step entries of beams, so that each entry belongs to the path of its beam.

    Args:
        t: (t, b, k, ...) or (t, b * k, ...), any dtype.
        parent_ids: (t, b, k) int, the beam of the step before that each beam continues.
        sequence_length: (b, k) int, steps of each beam; from there on a beam keeps its own entries.

    Returns:
        A tensor of the shape of `t`.

    Raises:
        UsageError: the shapes do not fit; outside jit, a parent on the way is no beam.
    """
    t, parent_ids = ops.convert_to_tensor(t), ops.cast(parent_ids, "int32")
    lengths = ops.minimum(ops.cast(sequence_length, "int32"), ops.shape(parent_ids)[0])
    batch, width = parent_ids.shape[1:]
    known, shape = None not in (batch, width), tuple(t.shape)
    merged = len(shape) > 1 and (shape[1] is None or not known or shape[1] == batch * width)
    apart = len(shape) > 2 and all(None in pair or pair[0] == pair[1] for pair in zip(shape[1:3], (batch, width), strict=True))
    if not merged and not apart:
        raise UsageError(
            f"Expected an array of shape (steps, {batch}, {width}, ...) or (steps, batch * beams, ...) "
            f"to reorder along its beams. Received: shape {shape}"
        )
    longest = ops.max(lengths, axis=1)
    _check_shapes(parent_ids, parent_ids, longest)
    path = ancestors(parent_ids, longest)
    time = ops.arange(ops.shape(parent_ids)[0], dtype="int32")[:, None, None]
    inside = time < lengths[None]
    _refuse_invalid(ops.logical_and(inside, path == INVALID))
    path = ops.where(inside, ops.maximum(path, 0), ops.arange(width, dtype="int32"))
    # Rows and beams on one axis or on two: the entries come in the same order.
    entries = (
        math.prod(shape) // math.prod(parent_ids.shape) if None not in (*shape, *parent_ids.shape) and 0 not in shape else -1
    )
    values = ops.reshape(t, (*ops.shape(parent_ids), entries))
    return ops.reshape(pick(values, path), ops.shape(t))


def tile_batch(t: Nested, multiplier: int, name: str | None = None) -> Nested:
    """Repeats every row of a batch: the copies of row i are rows i * multiplier to (i + 1) * multiplier - 1.

    Args:
        t: a tensor (b, ...), or a nested structure of such; None in it stays None.
        multiplier: int, at least 1.
        name: not used; TensorFlow Addons has it.

    Returns:
        `t` with first axes of b * multiplier.

    Raises:
        UsageError: a tensor has no batch axis, or `multiplier` is not a positive int.
    """
    if isinstance(multiplier, bool) or not isinstance(multiplier, int | np.integer) or multiplier < 1:
        raise UsageError(f"Expected multiplier to be an int of at least 1. Received: {multiplier!r}")

    def tiled(leaf):
        if leaf is None:
            return None
        leaf = ops.convert_to_tensor(leaf)
        if not len(leaf.shape):  # a tuple on two backends, on TensorFlow a shape that is true for a scalar too
            raise UsageError("Expected tensors with a batch axis. Received: a scalar")
        return ops.repeat(leaf, int(multiplier), axis=0)

    return tree.map_structure(tiled, t)


def _check_shapes(step_ids, parent_ids, lengths):
    shape = tuple(step_ids.shape)
    if len(shape) != 3 or tuple(parent_ids.shape) != shape or tuple(lengths.shape) != shape[1:2]:
        raise UsageError(
            "Expected ids and parents of shape (steps, batch, beams) and a length per row. "
            f"Received: ids {shape}, parents {tuple(parent_ids.shape)}, lengths {tuple(lengths.shape)}"
        )


def _refuse_invalid(invalid):
    invalid = backend.known(invalid)
    if invalid is not None and invalid.any():
        # The last invalid entry of a path is the step before the parent that is no beam.
        time, row, beam = np.argwhere(invalid)[-1].tolist()
        raise UsageError(
            "Expected each parent id to be a beam. "
            f"Received: a parent id outside the beams, on the path of beam {beam} of row {row} at step {time + 1}"
        )
