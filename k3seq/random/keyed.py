"""Random numbers from keys: pure functions that give the same bits on JAX, TensorFlow, PyTorch and NumPy, under jit or not.

    words = key(0, "sampling")                 # (2,) int32, NumPy
    uniform(fold(words, step), (8, 20))        # step: an int, or a tensor of a compiled loop

With NumPy arguments (as `key` returns) a function works in NumPy and returns NumPy. With a tensor in any argument it works in
`keras.ops` and returns tensors. Both share one definition in int32 arithmetic, which wraps on every backend (PyTorch has little
support for uint32, and JAX has int64 only on request); a logical shift is an arithmetic shift and a mask. Float results have at
most one rounding, so that compiler choices such as a fused multiply-add cannot change them.

A key is `(2,)` int32. Keys `(..., 2)` draw an independent block each, and their axes come first in the result.

The generator is Threefry-2x32-20 (Salmon, Moraes, Dror, Shaw: "Parallel random numbers: as easy as 1, 2, 3", SC 2011) over the
counters (0, 0), (1, 0), ... of a draw. The first half of the result is the first word of each block, the second half the second
word; interleaved, as in a `Stream`, they cost XLA eight times as much. `fold` and `split` encrypt counters that no draw uses.
"""

import functools
import sys
from typing import Any

import numpy as np

from k3seq.errors import UsageError
from k3seq.random.bits import PARITY, ROTATIONS, key_words
from k3seq.random.quantiles import HALF, SEGMENTS, gumbel_table, normal_table
from k3seq.typing import NDArray, Shape, Tensor

# Second words of the counters of `fold` and `split`; those of draws are 0.
_FOLD, _SPLIT = -1, -2


def key(seed: int, *names: str) -> NDArray[np.int32]:
    """The key of a seed and a purpose: `(2,)` int32, NumPy.

    Args:
        seed: integer in 0..2**64-1.
        names: text that names the purpose. Each name and their order change the key; no name is the same as one empty name.

    Raises:
        UsageError: the seed is not such an integer, or a name is not text.
    """
    return key_words(seed, *names or ("",)).view(np.int32)


def fold(key: Tensor, data: Tensor) -> Tensor:
    """A new key from a key and a number. Different numbers give independent keys, also independent of what `key` draws.

    Args:
        key: `(2,)` int32.
        data: an integer in -2**31..2**32-1 (modulo 2**32), or an int array or tensor of any shape.

    Returns:
        `(*shape of data, 2)` int32.

    Raises:
        UsageError: data is a Python integer outside that range.
    """
    if isinstance(data, int):
        if not -(2**31) <= data < 2**32:
            raise UsageError(f"Expected data to be an integer in -2**31..2**32-1. Received: data={data}")
        data = np.array(data & 0xFFFFFFFF, np.uint32).view(np.int32)
    space = _space(key, data)
    data = _cast(space, data, "int32")
    words = space.stack(_threefry(space, key, space.reshape(data, (-1,)), _FOLD), axis=-1)
    return space.reshape(words, (*space.shape(data), 2))


def split(key: Tensor, n: int) -> Tensor:
    """`n` keys from `key (2,)`: `(n, 2)` int32. A larger `n` keeps the first ones."""
    space = _space(key)
    return space.stack(_threefry(space, key, space.arange(n, dtype="int32"), _SPLIT), axis=-1)


def bits(key: Tensor, shape: Shape) -> Tensor:
    """Random words: `(*axes of key, *shape)` int32, all 2**32 values equally likely.

    Args:
        key: `(..., 2)` int32.
        shape: tuple of ints; on TensorFlow also of scalar int tensors.
    """
    shape = tuple(shape)
    space = _space(key, *shape)
    size: Any = 1
    for length in shape:
        size = size * length
    blocks = (size + 1) // 2
    words = space.concatenate(_threefry(space, key, space.arange(blocks, dtype="int32"), 0), axis=-1)
    return space.reshape(words[..., :size], (*tuple(space.shape(key))[:-1], *shape))


def uniform(key: Tensor, shape: Shape) -> Tensor:
    """float32 in [0, 1): the top 24 bits of a word times 2**-24. Arguments and shapes as `bits`."""
    words = bits(key, shape)
    space = _space(words)
    return _cast(space, _shift(space, words, 8), "float32") * np.float32(2.0**-24)


def normal(key: Tensor, shape: Shape) -> Tensor:
    """float32 of mean 0 and variance 1: the same bits on every backend. Arguments and shapes as `bits`.

    By inversion: see `quantiles`. Within 1.1e-5 of the true quantile; the absolute value is at most 6.23.
    """
    return _quantile(bits(key, shape), normal_table())


def gumbel(key: Tensor, shape: Shape) -> Tensor:
    """float32 of the standard Gumbel distribution, drawn like `normal`, within 3e-5 of the true quantile; in (-3.1, 22.2)."""
    return _quantile(bits(key, shape), gumbel_table())


def bernoulli(key: Tensor, p: Tensor, shape: Shape) -> Tensor:
    """bool of that shape, True with probability `p`: `uniform(key, shape) < p`, so in steps of 2**-24.

    Args:
        key, shape: as in `bits`.
        p: float, or an array or tensor that broadcasts to the result; 0 is never and 1 always True.
    """
    space = _space(key, p, *shape)
    drawn = uniform(_converted(space, key), shape)
    return drawn < (np.float32(p) if isinstance(p, (int, float)) else _cast(space, p, "float32"))


def categorical(key: Tensor, logits: Tensor) -> Tensor:
    """Ids drawn from softmax(logits) over the last axis, int32, by Gumbel's maximum (argmax of logits + `gumbel`).

    It needs no exponential and no sum over the axis, so there is no rounding that differs between backends: the same float32
    logits give the same ids on every backend. Where rounding makes two values equal (about one draw in a million), the lowest
    id is taken. One word is drawn per logit.

    Args:
        key: `(2,)`, one draw for all rows; or `(*batch axes of logits, 2)`, where a row depends on its own key alone and not on
            the other rows.
        logits: `(..., v)` float, -inf for ids that must not be drawn (a row of -inf gives 0); not NaN.
    """
    space = _space(key, logits)
    key, logits = _converted(space, key), _cast(space, logits, "float32")
    noise = gumbel(key, tuple(space.shape(logits))[len(key.shape) - 1 :])
    noisy = logits + noise
    size = noisy.shape[-1]
    # `ops.argmax` returns 0 on TensorFlow where the largest entry is the lowest finite number.
    found = space.where(noisy == space.max(noisy, axis=-1, keepdims=True), space.arange(size, dtype="int32"), size - 1)
    return _cast(space, space.min(found, axis=-1), "int32")


def permutation(key: Tensor, n: int) -> Tensor:
    """The integers 0..n-1 in random order, `(n,)` int32: sorted by 64 random bits each, from a key `(2,)`."""
    words = bits(key, (2, n))
    space = _space(words)
    first = _argsort(space, words[1])
    return space.take(first, _argsort(space, space.take(words[0], first)))


def _space(*values: Any) -> Any:
    """NumPy when no value is a tensor, else `keras.ops`: both have the functions that are used here."""
    host = (np.ndarray, np.generic, int, float, list, tuple)
    if all(isinstance(value, host) for value in values):
        return np
    return sys.modules["keras"].ops  # imported, because there is a tensor


def _cast(space: Any, x: Any, dtype: str) -> Any:
    return np.asarray(x, dtype) if space is np else space.cast(x, dtype)


def _converted(space: Any, x: Any) -> Any:
    """`x` as an array of `space`: adding NumPy to a tensor differs between backends."""
    return x if space is np else space.convert_to_tensor(x)


def _argsort(space: Any, x: Any) -> Any:
    """Stable, as `keras.ops.argsort` is on every backend."""
    return np.argsort(x, kind="stable").astype(np.int32) if space is np else space.argsort(x)


def _shift(space: Any, x: Any, count: int) -> Any:
    """Logical shift right."""
    return space.right_shift(x, count) & ((1 << (32 - count)) - 1)


def _threefry(space: Any, key: Any, low: Any, high: int) -> tuple[Any, Any]:
    """Two words per counter: `bits.threefry` in int32.

    Args:
        key: `(..., 2)`.
        low: first words of the counters, `(n,)`.
        high: their second word, an int.

    Returns:
        Two of `(..., n)`.
    """
    key = _converted(space, key)
    first, second = key[..., :1], key[..., 1:]
    third = first ^ second ^ PARITY

    x0, x1 = _mix(space, low + first, second + high, 0)
    carry = (x0 + second, x1 + (third + 1), third, first, second)
    body = _two_groups(space)
    if space is np:
        return body(1, body(0, carry))[:2]
    # A loop, because XLA would otherwise fuse the rounds into each reader of the words and compute them there one by one.
    return space.fori_loop(0, 2, body, carry)[:2]


def _mix(space: Any, x0: Any, x1: Any, group: int) -> tuple[Any, Any]:
    """Four rounds."""
    for rotation in ROTATIONS[group % 2]:
        x0 = x0 + x1
        # The product is a left shift, for which TensorFlow's tensors have no operator.
        x1 = (x1 * (1 << rotation) | _shift(space, x1, 32 - rotation)) ^ x0
    return x0, x1


@functools.cache  # one function, so that JAX in eager use compiles it once
def _two_groups(space: Any) -> Any:
    def body(i, carry):
        """Groups 2i + 1 and 2i + 2: words, and the key schedule before them."""
        x0, x1, a, b, c = carry
        x0, x1 = _mix(space, x0, x1, 1)
        x0, x1 = _mix(space, x0 + a, x1 + (b + (2 * i + 2)), 2)
        return x0 + b, x1 + (c + (2 * i + 3)), c, a, b

    return body


def _quantile(words: Tensor, table: tuple[NDArray[np.float32], NDArray[np.float32]]) -> Tensor:
    """The table's value at each word: a half, an octave, one of its segments, and a position within the segment."""
    space = _space(words)
    position = (words & (2**30 - 1)) * 2 + 1  # odd: the middle of its cell, and never 0
    row = _cast(space, words < 0, "int32") * HALF
    for step in (16, 8, 4, 2, 1):  # moves the leading one to bit 30 and counts the shifts
        low = position < 1 << (31 - step)
        position = space.where(low, position * (1 << step), position)
        row = space.where(low, row + step * SEGMENTS, row)
    row = row + (_shift(space, position, 24) & (SEGMENTS - 1))
    within = (_shift(space, position, 12) & 4095) * 2 - 4095
    middles, gradients = table
    # Gradients have 12 bits and `within` has 12: their product is exact, and only the sum is rounded.
    return space.take(middles, row) + space.take(gradients, row) * _cast(space, within, "float32")
