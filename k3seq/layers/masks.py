"""Masks as arguments: pure functions on `keras.ops`, bool, True = keep.

They neither read nor write masks that Keras attaches to tensors: Keras 3.16 no longer passes those through RNN layers.
"""

import keras
import ml_dtypes
from keras import ops

from k3seq.typing import Tensor


def length_mask(lengths: Tensor, steps: int | Tensor) -> Tensor:
    """True on the first `lengths[i]` of `steps` positions of row i: `(b,)` int -> `(b, steps)` bool."""
    return ops.arange(steps, dtype="int32")[None, :] < ops.cast(lengths, "int32")[:, None]


def causal_mask(steps: int | Tensor) -> Tensor:
    """True where the key is not after the query: `(1, steps, steps)` bool, queries by keys."""
    positions = ops.arange(steps, dtype="int32")
    return (positions[None, :] <= positions[:, None])[None]


def key_mask(mask: Tensor) -> Tensor:
    """`(b, s)` bool -> `(b, 1, s)`, the same keys for every query; None (keep all) stays None."""
    return None if mask is None else ops.expand_dims(ops.cast(mask, "bool"), 1)


def combine(*masks: Tensor) -> Tensor:
    """Logical and of masks that broadcast against each other. None keeps everything; the result is None if all are None."""
    kept = None
    for mask in masks:
        if mask is not None:
            kept = mask if kept is None else ops.logical_and(kept, mask)
    return kept


def masked_softmax(scores: Tensor, mask: Tensor = None) -> Tensor:
    """Softmax over the last axis among the kept positions; a masked position gets exactly 0.

    `scores (..., s)` float, `mask` bool broadcastable to it. A row with nothing to keep gives zeros, never NaN.
    """
    # `ops.softmax` warns of an axis of size 1, which a source of one token has. A masked score becomes the dtype's lowest
    # finite number, because a row of -inf would give inf - inf.
    if mask is not None:
        lowest = ml_dtypes.finfo(keras.backend.standardize_dtype(scores.dtype)).min
        scores = ops.where(mask, scores, float(lowest))
    powers = ops.exp(scores - ops.stop_gradient(ops.max(scores, axis=-1, keepdims=True)))
    if mask is not None:
        powers = powers * ops.cast(mask, scores.dtype)
    return ops.divide_no_nan(powers, ops.sum(powers, axis=-1, keepdims=True))


def masked_mean(x: Tensor, mask: Tensor) -> Tensor:
    """Mean of `x (b, s, d)` over the positions kept by `mask (b, s)`: `(b, d)`; zeros where a row keeps none."""
    weights = ops.cast(mask, x.dtype)[..., None]
    return ops.sum(x * weights, axis=1) / ops.maximum(ops.sum(weights, axis=1), 1)
