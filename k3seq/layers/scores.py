"""Scores of queries against keys, as pure functions.

Products use the operator `@`, because `keras.ops.matmul` on torch multiplies float64 in float32.
"""

import keras
from keras import ops

from k3seq.typing import Tensor


def luong_score(query: Tensor, keys: Tensor) -> Tensor:
    """Dot products (Luong et al. 2015, https://arxiv.org/abs/1508.04025, "dot"; "general" when keys were projected before).

    Args:
        query: (b, t, d). keys: (b, s, d).

    Returns:
        (b, t, s).
    """
    return query @ ops.transpose(keys, (0, 2, 1))


def additive_score(query: Tensor, keys: Tensor, v: Tensor, g: Tensor = None, b: Tensor = None) -> Tensor:
    """The additive score `v . tanh(key + query)` (Bahdanau et al. 2015, https://arxiv.org/abs/1409.0473, A.1.2).

    With `g` it uses weight normalisation (Salimans & Kingma 2016, https://arxiv.org/abs/1602.07868):
    `g v / |v| . tanh(key + query + b)`.

    Args:
        query: (b, t, d), projected. keys: (b, s, d), projected. v: (d,). g: scalar or None. b: (d,) or None.

    Returns:
        (b, t, s).
    """
    hidden = ops.expand_dims(keys, 1) + ops.expand_dims(query, 2)
    if b is not None:
        hidden = hidden + b
    if g is not None:
        v = g * v * ops.rsqrt(ops.sum(ops.square(v)))
    return ops.sum(v * _tanh(hidden), axis=-1)


def _tanh(x: Tensor) -> Tensor:
    # On JAX, ops.tanh turns float64 into float32.
    exact = keras.backend.standardize_dtype(x.dtype) == "float64"
    return 2 * ops.sigmoid(2 * x) - 1 if exact else ops.tanh(x)
