"""From scores to alignments, as pure functions: softmax, hardmax, and the monotonic attention of Raffel et al. 2017.

Scores, probabilities and alignments are (b, s). A masked score is the dtype's lowest finite number, not minus infinity. A
fully masked row therefore gets uniform alignments under softmax, as in TensorFlow Addons, and never NaN.
"""

from collections.abc import Callable

import keras
import ml_dtypes
from keras import ops

from k3seq import arguments
from k3seq.typing import Tensor

MODES = ("parallel", "recursive", "hard")


def mask_scores(scores: Tensor, mask: Tensor, value: float | None = None) -> Tensor:
    """Sets the scores where `mask` is False to `value` (None: the lowest finite number of the dtype).

    Args:
        scores: (b, s) float.
        mask: (b, s) bool, True = keep.
        value: float, or None.

    Returns:
        (b, s), the dtype of `scores`.
    """
    if value is None:
        value = float(ml_dtypes.finfo(keras.backend.standardize_dtype(scores.dtype)).min)
    return ops.where(mask, scores, ops.convert_to_tensor(value, scores.dtype))


def softmax(scores: Tensor) -> Tensor:
    """Softmax over the last axis, same shape and dtype. `keras.ops.softmax` would warn where that axis has size 1."""
    powers = ops.exp(scores - ops.stop_gradient(ops.max(scores, axis=-1, keepdims=True)))
    return powers / ops.sum(powers, axis=-1, keepdims=True)


def hardmax(logits: Tensor) -> Tensor:
    """One at the largest logit of the last axis, the first of equal ones, and zero elsewhere.

    Args:
        logits: (..., n) float.

    Returns:
        The same shape and dtype.
    """
    logits = ops.convert_to_tensor(logits)
    largest = ops.cast(logits == ops.max(logits, axis=-1, keepdims=True), "int32")
    # Not by `ops.argmax`, which returns 0 on TensorFlow where the largest entry is the lowest finite number.
    return ops.cast(ops.where(ops.cumsum(largest, axis=-1) == 1, largest, 0), logits.dtype)


def safe_cumprod(x: Tensor, axis: int = 0, exclusive: bool = False, reverse: bool = False) -> Tensor:
    """Cumulative product of numbers in [0, 1] as `exp(cumsum(log(x)))`, whose gradient exists where a factor is 0.

    Args:
        x: float, any shape.
        axis: axis along which to multiply.
        exclusive: the product at an element does not include the element itself.
        reverse: multiply from the end.

    Returns:
        The same shape and dtype.
    """
    x = ops.convert_to_tensor(x)
    logs = ops.log(_at_least(ops.where(x < 1, x, ops.ones_like(x)), 0.0))
    return ops.exp(_accumulate(ops.add, logs, 0.0, axis, exclusive, reverse))


def _at_least(x: Tensor, bound: float) -> Tensor:
    """The larger of `x` and the bound, which is itself at least the smallest normal number of the dtype."""
    bound = max(bound, float(ml_dtypes.finfo(keras.backend.standardize_dtype(x.dtype)).tiny))
    return ops.where(x > bound, x, ops.full_like(x, bound))  # ops.maximum and ops.clip round in float32 on torch


def _accumulate(
    operation: Callable[..., Tensor], x: Tensor, neutral: float, axis: int, exclusive: bool, reverse: bool
) -> Tensor:
    """`operation` (add, multiply) along an axis, with the exclusive and reverse forms that keras.ops lacks."""
    if reverse:
        x = ops.flip(x, axis=axis)
    x = _cumulate(operation, x, axis)
    if exclusive:
        axis = axis % len(x.shape)
        first = tuple(slice(0, 1) if i == axis else slice(None) for i in range(len(x.shape)))
        rest = tuple(slice(0, -1) if i == axis else slice(None) for i in range(len(x.shape)))
        x = ops.concatenate([ops.full_like(x[first], neutral), x[rest]], axis=axis)
    return ops.flip(x, axis=axis) if reverse else x


def _cumulate(operation: Callable[..., Tensor], x: Tensor, axis: int) -> Tensor:
    if keras.backend.standardize_dtype(x.dtype) != "float64":
        return {ops.add: ops.cumsum, ops.multiply: ops.cumprod}[operation](x, axis=axis)
    # On torch, ops.cumsum, ops.cumprod and ops.associative_scan compute float64 in float32.

    def step(carry, now):
        carry = operation(carry, now)
        return carry, carry

    x = ops.moveaxis(x, axis, 0)
    _, x = ops.scan(step, ops.full_like(x[0], float(operation is ops.multiply)), x)
    return ops.moveaxis(x, 0, axis)


def monotonic_attention(p_choose_i: Tensor, previous_attention: Tensor, mode: str) -> Tensor:
    """Attention that moves through the memory from left to right only.

    It starts at the entry where it stopped in the step before, visits one entry after the other, and stops at entry i with
    probability `p_choose_i` (Raffel et al. 2017, https://arxiv.org/abs/1704.00784, eq. 9 to 11).

    Args:
        p_choose_i: (b, s) float in [0, 1].
        previous_attention: (b, s), alignments of the step before.
        mode: "recursive" computes eq. 10 step by step and is exact; "parallel" is its closed form, fast, but not exact where p
            is near 1 or s is large; "hard" is for p of exactly 0 or 1 and a one-hot previous attention.

    Returns:
        (b, s): alignments; a row sums to less than 1 where attention reached the end without a stop.

    Raises:
        UsageError: an unknown mode.
    """
    arguments.one_of(MODES, mode=mode)
    p, previous = ops.convert_to_tensor(p_choose_i), ops.convert_to_tensor(previous_attention)
    if mode == "recursive":
        return _recursive(p, previous)
    if mode == "parallel":
        passing = safe_cumprod(1 - p, axis=1, exclusive=True)
        # 1e-10 keeps the quotient finite, as in the paper's code.
        return p * passing * _cumulate(ops.add, previous / _at_least(passing, 1e-10), 1)
    # An entry may be chosen only from the previous one on, and the first chosen one is taken.
    p = p * _cumulate(ops.add, previous, 1)
    return p * _accumulate(ops.multiply, 1 - p, 1.0, 1, exclusive=True, reverse=False)


def _recursive(p: Tensor, previous: Tensor) -> Tensor:
    passing = ops.concatenate([ops.ones_like(p[:, :1]), 1 - p[:, :-1]], axis=1)

    def step(arriving, now):
        arriving = now[0] * arriving + now[1]
        return arriving, arriving

    _, arriving = ops.scan(step, ops.zeros_like(p[:, 0]), (ops.transpose(passing), ops.transpose(previous)))
    return p * ops.transpose(arriving)
