"""TFA's functions that draw for a `sample_fn` of `InferenceSampler`."""

import keras
from keras import ops

from k3seq import random
from k3seq.errors import UsageError
from k3seq.seq2seq.sampler_base import seeded
from k3seq.typing import Shape, Tensor


def categorical_sample(logits: Tensor, dtype: str = "int32", sample_shape: Shape = (), seed: int | None = None) -> Tensor:
    """Draws ids from softmax(logits) over the last axis.

    The draw depends on the seed and on the logits: in a compiled loop, where Python runs once, each step still draws other
    numbers. A compiled function draws the same for the same logits; `SampleEmbeddingSampler`, which counts its calls, does not.

    Args:
        logits: (..., v) float. dtype: of the result. sample_shape: how many to draw for each row, axes before the others.
        seed: int, which gives the same ids for the same logits; None: another seed in every call from Python.

    Returns:
        (*sample_shape, ...) ids.
    """
    logits = ops.convert_to_tensor(logits)
    many = ops.broadcast_to(logits, (*sample_shape, *ops.shape(logits)))
    return ops.cast(random.categorical(_key(seed, "categorical", logits), many), _name(dtype))


def bernoulli_sample(
    probs: Tensor | None = None,
    logits: Tensor | None = None,
    dtype: str = "int32",
    sample_shape: Shape = (),
    seed: int | None = None,
) -> Tensor:
    """Draws independent numbers that are 1 with probability `probs`, or `sigmoid(logits)`, and 0 otherwise.

    Args:
        probs, logits: float, of any shape; `probs` takes precedence. The others: as in `categorical_sample`.

    Returns:
        (*sample_shape, *shape of probs) of `dtype`, which may be "bool".

    Raises:
        UsageError: neither `probs` nor `logits` is given.
    """
    if probs is None and logits is None:
        raise UsageError("Expected probs or logits. Received: neither")
    probs = ops.sigmoid(logits) if probs is None else ops.convert_to_tensor(probs)
    shape = (*sample_shape, *ops.shape(probs))
    return ops.cast(random.bernoulli(_key(seed, "bernoulli", probs), probs, shape), _name(dtype))


def _key(seed, name, values):
    """A key that the seed and the values decide."""
    values = ops.cast(ops.where(ops.isfinite(values), values, ops.zeros_like(values)), "float32")
    total = ops.sum(values) * 1.618034
    digest = ops.cast((total - ops.floor(total)) * 2.0**24, "int32")
    return random.fold(random.key(seeded(seed), name), digest)


def _name(dtype):
    return keras.backend.standardize_dtype(dtype)
