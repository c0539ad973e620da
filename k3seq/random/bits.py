"""Counter-based random numbers in NumPy: Threefry-2x32 with 20 rounds.

Salmon, Moraes, Dror, Shaw: "Parallel random numbers: as easy as 1, 2, 3", SC 2011. The bits come from integer operations. The
normal numbers use only additions, multiplications, divisions and square roots, whose rounding IEEE 754 defines. NumPy's `log`
and `cos` are not used, because they differ in the last bit between processors and versions.
"""

import hashlib

import numpy as np

from k3seq import arguments
from k3seq.errors import UsageError
from k3seq.typing import ArrayLike, NDArray

ROTATIONS = ((13, 15, 26, 6), (17, 29, 16, 24))
PARITY = 0x1BD11BDA


def threefry(key: ArrayLike, counter: ArrayLike) -> NDArray[np.uint32]:
    """Threefry-2x32-20.

    Args:
        key: two uint32 words, `(2,)`, or `(2, n)` for a key per counter.
        counter: uint32 words `(2, n)` or `(2,)`.

    Returns:
        uint32 words with the shape of `counter`.
    """
    key, counter = np.asarray(key, np.uint32), np.asarray(counter, np.uint32)
    schedule = [key[:1], key[1:], key[:1] ^ key[1:] ^ np.uint32(PARITY)]
    # Slices, not scalars: the overflow is intended, and NumPy warns of it for scalars but not for arrays.
    x0, x1 = counter[:1] + schedule[0], counter[1:] + schedule[1]
    for group in range(5):
        for rotation in ROTATIONS[group % 2]:
            x0 = x0 + x1
            x1 = ((x1 << np.uint32(rotation)) | (x1 >> np.uint32(32 - rotation))) ^ x0
        x0 = x0 + schedule[(group + 1) % 3]
        x1 = x1 + schedule[(group + 2) % 3] + np.uint32(group + 1)
    return np.concatenate([x0, x1])


def key_words(seed: int, *names: str) -> NDArray[np.uint32]:
    """The words of the seed, used to encrypt the SHA-256 of one name after the other: uint32 `(2,)`.

    Raises:
        UsageError: the seed is not an integer in 0..2**64-1, or a name is not text.
    """
    arguments.integer(0, 2**64 - 1, seed=seed)
    words = np.array([int(seed) & 0xFFFFFFFF, int(seed) >> 32], np.uint32)
    for name in names:
        if not isinstance(name, str):
            raise UsageError(f"Expected names to be text. Received: name={name!r}")
        words = threefry(words, np.frombuffer(hashlib.sha256(name.encode()).digest()[:8], "<u4"))
    return words


def _log(x: NDArray[np.float64]) -> NDArray[np.float64]:
    """Natural logarithm of float64 `x` > 0, by the series of artanh on a mantissa in [sqrt(1/2), sqrt(2))."""
    mantissa, exponent = np.frexp(x)
    low = mantissa < 0.7071067811865476
    mantissa, exponent = np.where(low, mantissa * 2, mantissa), exponent - low
    s = (mantissa - 1) / (mantissa + 1)
    square, total = s * s, np.zeros_like(s)
    for power in range(21, -1, -2):
        total = total * square + 1 / power
    return 2 * s * total + exponent * 0.6931471805599453


def _cosine_and_sine(turns: NDArray[np.float64]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Cosine and sine of `turns` full turns, float64 in [0, 1), by Taylor's series within an eighth of a turn."""
    quarter = np.floor(turns * 4 + 0.5)
    angle = (turns - quarter / 4) * 6.283185307179586
    square, cosine, sine = angle * angle, np.zeros_like(angle), np.zeros_like(angle)
    for power in range(18, 0, -2):
        cosine = 1 - cosine * square / (power * (power - 1))
        sine = 1 - sine * square / (power * (power + 1))
    sine = sine * angle
    quarter = quarter.astype(np.int64) % 4
    return np.choose(quarter, [cosine, -sine, -cosine, sine]), np.choose(quarter, [sine, cosine, -sine, -cosine])


class Stream:
    """A stream of random numbers, the same on every machine and with every NumPy version.

    Streams with another seed or another name are independent. Every draw starts at a new block of two words, so the
    same calls in the same order give the same numbers.

    Args:
        seed: integer in 0..2**64-1.
        name: purpose of the numbers; the key is the SHA-256 of the name, encrypted by Threefry with the seed.

    Raises:
        UsageError: the seed is not such an integer, or the name is not text.
    """

    def __init__(self, seed: int, name: str = ""):
        self._key = key_words(seed, name)
        self.seed, self.name = int(seed), name
        self._block = 0

    def bits(self, n: int) -> NDArray[np.uint32]:
        """`n` words, uint32 of shape `(n,)`."""
        blocks = np.arange(self._block, self._block + (n + 1) // 2, dtype=np.uint64)
        self._block += len(blocks)
        counter = np.stack([blocks & np.uint64(0xFFFFFFFF), blocks >> np.uint64(32)]).astype(np.uint32)
        return threefry(self._key, counter).T.reshape(-1)[:n]

    def uniform(self, shape: tuple[int, ...] = ()) -> NDArray[np.float32]:
        """float32 in [0, 1): the top 24 bits of a word times 2**-24."""
        words = self.bits(_size(shape)) >> np.uint32(8)
        return (words.astype(np.float32) * np.float32(2.0**-24)).reshape(shape)

    def normal(self, shape: tuple[int, ...] = ()) -> NDArray[np.float32]:
        """float32, mean 0, variance 1, by Box and Muller (1958) in float64; the absolute value is at most 6.7."""
        size = _size(shape)
        half = (size + 1) // 2
        words = self.bits(2 * half).astype(np.float64).reshape(2, half) * 2.0**-32
        radius = np.sqrt(-2 * _log(words[0] + 2.0**-32))  # shifted into (0, 1], where the logarithm is finite
        return np.concatenate(_cosine_and_sine(words[1]) * radius)[:size].astype(np.float32).reshape(shape)

    def integers(self, low: int, high: int, shape: tuple[int, ...] = ()) -> NDArray[np.int64]:
        """int64 in [low, high), unbiased, by Lemire's multiply-shift with rejection (arXiv 1805.10941).

        Raises:
            UsageError: the range is empty or wider than 2**32.
        """
        width = int(high) - int(low)
        if not 1 <= width <= 2**32:
            raise UsageError(f"Expected 1 to 2**32 integers in [low, high). Received: low={low}, high={high}")
        drawn = np.zeros(_size(shape), np.uint64)
        waiting = np.arange(drawn.size)
        while waiting.size:
            product = self.bits(waiting.size).astype(np.uint64) * np.uint64(width)
            drawn[waiting] = product >> np.uint64(32)
            waiting = waiting[(product & np.uint64(0xFFFFFFFF)) < np.uint64(2**32 % width)]
        return (drawn.astype(np.int64) + low).reshape(shape)

    def permutation(self, n: int) -> NDArray[np.int64]:
        """The integers 0..n-1 in random order, int64 `(n,)`: a stable sort by 64 random bits each."""
        words = self.bits(2 * n).astype(np.uint64).reshape(n, 2)
        return np.argsort((words[:, 0] << np.uint64(32)) | words[:, 1], kind="stable").astype(np.int64)


def _size(shape: tuple[int, ...]) -> int:
    return int(np.prod(shape, dtype=np.int64))
