"""Tables of inverse distribution functions in linear pieces, from which floats are read with one rounding.

After Cheung, Lee, Luk, Villasenor: "Hardware generation of arbitrary random number distributions from uniform distributions via
the inversion method", IEEE Trans. VLSI 15(8), 2007: octaves that halve toward each tail, each octave in equal segments, and a
straight line on each. A number is `middle + gradient * within`. The gradients are rounded to 12 bits and `within` is an odd
integer of 12 bits, so their product is exact in float32 and the sum is the only rounding, with a fused multiply-add or without.
"""

import functools
import math
import statistics
from collections.abc import Callable

import numpy as np

from k3seq.typing import NDArray

SEGMENTS = 64  # of an octave
OCTAVES = 31  # of a half: probabilities 1/4..1/2, 1/8..1/4, down to 2**-32
HALF = OCTAVES * SEGMENTS  # rows of a half


def table(lower: Callable[[float], float], upper: Callable[[float], float]) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """(middles, gradients), each float32 `(2 * HALF,)`: rows by half (lower, upper), octave from the middle out, segment.

    Args:
        lower: the quantile as a function of the probability below it, at most 1/2.
        upper: the quantile as a function of the probability above it, at most 1/2.
    """
    octave, segment = np.divmod(np.arange(HALF), SEGMENTS)
    width = 2.0 ** -(octave + 8)
    halves = []
    for quantile in (lower, upper):
        start, middle, end = (np.array([quantile(p) for p in (SEGMENTS + segment + part) * width]) for part in (0.0, 0.5, 1.0))
        # By Simpson's rule the line has the same mean as the curve.
        halves.append(((start + 4 * middle + end) / 6, _rounded((end - start) / 8192)))
    middles, gradients = np.concatenate(halves, axis=1)
    return middles.astype(np.float32), gradients.astype(np.float32)


def _rounded(gradient: NDArray[np.float64]) -> NDArray[np.float64]:
    """Rounded to 12 bits."""
    mantissa, exponent = np.frexp(gradient)
    return np.ldexp(np.rint(mantissa * 4096) / 4096, exponent)


@functools.cache
def normal_table() -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """The normal distribution of mean 0 and variance 1."""
    quantile = statistics.NormalDist().inv_cdf
    return table(quantile, lambda p: -quantile(p))


@functools.cache
def gumbel_table() -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """The standard Gumbel distribution, exp(-exp(-x))."""
    return table(lambda p: -math.log(-math.log(p)), lambda p: -math.log(-math.log1p(-p)))
