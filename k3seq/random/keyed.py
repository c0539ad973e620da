"""Random numbers from keys: pure functions that give the same bits on JAX, TensorFlow, PyTorch and NumPy, under jit or not.

    words = key(0, "sampling")                 # (2,) int32, on the host
    uniform(fold(words, step), (8, 20))        # step: an int, or a tensor of a compiled loop

Given NumPy (as `key` returns) a function works in NumPy and returns NumPy; given a tensor in any argument it works in
`keras.ops` and returns tensors. It is one definition for both: int32 arithmetic, which wraps everywhere (PyTorch has hardly any
uint32, JAX no int64 unless asked), with an arithmetic shift and a mask as the logical shift. Float results take one rounding at
most, so no choice of a compiler, such as a fused multiply-add, can change them.

A key is `(2,)` int32; keys `(..., 2)` draw an independent block each, and their axes come first in the result.

The generator is Threefry-2x32-20 (Salmon, Moraes, Dror, Shaw: "Parallel random numbers: as easy as 1, 2, 3", SC 2011) over the
counters (0, 0), (1, 0), ... of a draw: its first half is the first word of each, its second half the second. (Side by side, as
in a `Stream`, they would cost XLA eight times as much.) `fold` and `split` encrypt counters that no draw reaches.
"""

import functools
import sys

import numpy as np

from k3seq.errors import UsageError
from k3seq.random.bits import PARITY, ROTATIONS, key_words
from k3seq.random.quantiles import HALF, SEGMENTS, gumbel_table, normal_table

# Second words of the counters of `fold` and `split`; those of draws are 0.
_FOLD, _SPLIT = -1, -2


def key(seed, *names):
    """The key of a seed and of what it is for: `(2,)` int32, NumPy.

    Args:
        seed: integer in 0..2**64-1. names: text, each of which changes the key, as does their order; none is one empty name.

    Raises:
        UsageError: the seed is not such an integer, or a name is not text.
    """
    return key_words(seed, *names or ("",)).view(np.int32)


def fold(key, data):
    """A new key from `key (2,)` and a number; other numbers give independent keys, independent also of what `key` draws.

    Args:
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


def split(key, n):
    """`n` keys from `key (2,)`: `(n, 2)` int32. The first of them do not depend on `n`."""
    space = _space(key)
    return space.stack(_threefry(space, key, space.arange(n, dtype="int32"), _SPLIT), axis=-1)


def bits(key, shape):
    """Random words: `(*axes of key, *shape)` int32, all 2**32 values equally likely.

    Args:
        key: `(..., 2)` int32. shape: tuple of ints; on TensorFlow also of scalar int tensors.
    """
    shape = tuple(shape)
    space, size = _space(key, *shape), 1
    for length in shape:
        size = size * length
    blocks = (size + 1) // 2
    words = space.concatenate(_threefry(space, key, space.arange(blocks, dtype="int32"), 0), axis=-1)
    return space.reshape(words[..., :size], (*tuple(space.shape(key))[:-1], *shape))


def uniform(key, shape):
    """float32 in [0, 1): the top 24 bits of a word times 2**-24. Arguments and shapes as `bits`."""
    words = bits(key, shape)
    space = _space(words)
    return _cast(space, _shift(space, words, 8), "float32") * np.float32(2.0**-24)


def normal(key, shape):
    """float32 of mean 0 and variance 1: the same bits on every backend. Arguments and shapes as `bits`.

    By inversion: see `quantiles`. Within 1.1e-5 of the true quantile; never beyond 6.23.
    """
    return _quantile(bits(key, shape), normal_table())


def gumbel(key, shape):
    """float32 of the standard Gumbel distribution, made like `normal`, within 3e-5 of the true quantile; in (-3.1, 22.2)."""
    return _quantile(bits(key, shape), gumbel_table())


def bernoulli(key, p, shape):
    """bool of that shape, True with probability `p`: `uniform(key, shape) < p`, so in steps of 2**-24.

    Args:
        p: float, or an array or tensor that broadcasts to the result; 0 is never and 1 always True.
    """
    space = _space(key, p, *shape)
    drawn = uniform(_there(space, key), shape)
    return drawn < (np.float32(p) if isinstance(p, (int, float)) else _cast(space, p, "float32"))


def categorical(key, logits):
    """Ids drawn from softmax(logits) over the last axis, int32, by Gumbel's maximum (argmax of logits + `gumbel`).

    No exponential, no sum and so no rounding that a backend could do otherwise: from the same float32 logits come the same
    ids on every backend. Where rounding makes two sums equal (about one draw in a million), the lowest id is taken. One
    word is drawn per logit.

    Args:
        key: `(2,)`, one draw for all; or `(*batch axes of logits, 2)`, where a row depends on its own key alone and not on the
            rows beside it.
        logits: `(..., v)` float, -inf for what must not be drawn (a row of nothing else gives 0); not NaN.
    """
    space = _space(key, logits)
    key, logits = _there(space, key), _cast(space, logits, "float32")
    noise = gumbel(key, tuple(space.shape(logits))[len(key.shape) - 1 :])
    noisy = logits + noise
    size = noisy.shape[-1]
    # `ops.argmax` returns 0 on TensorFlow where the largest entry is the lowest finite number.
    found = space.where(noisy == space.max(noisy, axis=-1, keepdims=True), space.arange(size, dtype="int32"), size - 1)
    return _cast(space, space.min(found, axis=-1), "int32")


def permutation(key, n):
    """The integers 0..n-1 in random order, `(n,)` int32: sorted by 64 random bits each, from a key `(2,)`."""
    words = bits(key, (2, n))
    space = _space(words)
    first = _argsort(space, words[1])
    return space.take(first, _argsort(space, space.take(words[0], first)))


def _space(*values):
    """NumPy when all values live on the host, else `keras.ops`: the two share the names that are used here."""
    host = (np.ndarray, np.generic, int, float, list, tuple)
    if all(isinstance(value, host) for value in values):
        return np
    return sys.modules["keras"].ops  # whoever holds a tensor has imported keras


def _cast(space, x, dtype):
    return np.asarray(x, dtype) if space is np else space.cast(x, dtype)


def _there(space, x):
    """`x` where the result will be: to add NumPy to a tensor works on no two backends alike."""
    return x if space is np else space.convert_to_tensor(x)


def _argsort(space, x):
    """Stable, as `keras.ops.argsort` is on every backend."""
    return np.argsort(x, kind="stable").astype(np.int32) if space is np else space.argsort(x)


def _shift(space, x, count):
    """Logical shift right."""
    return space.right_shift(x, count) & ((1 << (32 - count)) - 1)


def _threefry(space, key, low, high):
    """Two words per counter: `bits.threefry` in int32.

    Args:
        key: `(..., 2)`. low: first words of the counters, `(n,)`. high: their second word, an int.

    Returns:
        Two of `(..., n)`.
    """
    key = _there(space, key)
    first, second = key[..., :1], key[..., 1:]
    third = first ^ second ^ PARITY

    x0, x1 = _mix(space, low + first, second + high, 0)
    carry = (x0 + second, x1 + (third + 1), third, first, second)
    body = _two_groups(space)
    if space is np:
        return body(1, body(0, carry))[:2]
    # A loop, because XLA would else melt the rounds into whatever reads the words, and do them there one by one.
    return space.fori_loop(0, 2, body, carry)[:2]


def _mix(space, x0, x1, group):
    """Four rounds."""
    for rotation in ROTATIONS[group % 2]:
        x0 = x0 + x1
        # The product is the left shift, for which TensorFlow's tensors have no operator.
        x1 = (x1 * (1 << rotation) | _shift(space, x1, 32 - rotation)) ^ x0
    return x0, x1


@functools.cache  # one function, so that JAX in eager use compiles it once
def _two_groups(space):
    def body(i, carry):
        """Groups 2i + 1 and 2i + 2: words, and the key schedule as it stands before them."""
        x0, x1, a, b, c = carry
        x0, x1 = _mix(space, x0, x1, 1)
        x0, x1 = _mix(space, x0 + a, x1 + (b + (2 * i + 2)), 2)
        return x0 + b, x1 + (c + (2 * i + 3)), c, a, b

    return body


def _quantile(words, table):
    """The table's value at each word: a half, an octave, one of its segments, and a place within the segment."""
    space = _space(words)
    place = (words & (2**30 - 1)) * 2 + 1  # odd: the middle of its cell, and never 0
    row = _cast(space, words < 0, "int32") * HALF
    for step in (16, 8, 4, 2, 1):  # moves the leading one to bit 30, counting by how much
        low = place < 1 << (31 - step)
        place = space.where(low, place * (1 << step), place)
        row = space.where(low, row + step * SEGMENTS, row)
    row = row + (_shift(space, place, 24) & (SEGMENTS - 1))
    within = (_shift(space, place, 12) & 4095) * 2 - 4095
    middles, gradients = table
    # Gradients have 12 bits and `within` has 12: their product is exact, and only the sum is rounded.
    return space.take(middles, row) + space.take(gradients, row) * _cast(space, within, "float32")
