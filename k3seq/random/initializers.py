"""Keras' random initialisers, drawn on the host: an integer seed gives the same weights on every backend.

    keras.layers.Dense(8, kernel_initializer=GlorotUniform(seed=3))

Names, arguments and distributions are those of `keras.initializers`. As there, the same integer seed and shape give the same
numbers again, so give each weight a different seed, or draw all weights of a model with `k3seq.random.initialize`, which uses
their paths. The seed cannot be None.
"""

from typing import Any

import keras
import numpy as np
from keras import ops

from k3seq import arguments
from k3seq.errors import UsageError
from k3seq.random.bits import Stream, key_words
from k3seq.random.weights import draw
from k3seq.typing import Shape, Tensor


class _Drawn(keras.initializers.Initializer):
    """What all initialisers share: the seed, and `draw` by the class name.

    Called with a shape and a float dtype, it returns a tensor of float32 numbers rounded to that dtype.

    Raises:
        UsageError: the seed is not an integer in 0..2**64-1, or the dtype is not a float type.
    """

    def __init__(self, seed: int):
        key_words(seed)
        self.seed = seed

    def __call__(self, shape: Shape, dtype: Any = None) -> Tensor:
        dtype = keras.backend.standardize_dtype(dtype or keras.config.floatx())
        if not keras.backend.is_float_dtype(dtype):
            raise UsageError(f"Expected a float dtype. Received: dtype={dtype}")
        kind = type(self).__name__
        value = draw(kind, self.get_config(), tuple(shape), Stream(self.seed, kind))
        return ops.cast(ops.convert_to_tensor(np.asarray(value, np.float32)), dtype)

    def get_config(self) -> dict[str, Any]:
        return {"seed": self.seed}


class _Scaled(_Drawn):
    """Variance scaled by the fans."""

    def __init__(self, *, seed: int):
        super().__init__(seed)


@keras.saving.register_keras_serializable(package="k3seq")
class GlorotUniform(_Scaled):
    """Uniform with variance 2 / (fan in + fan out) (Glorot and Bengio 2010)."""


@keras.saving.register_keras_serializable(package="k3seq")
class GlorotNormal(_Scaled):
    """Normal, truncated at two deviations, with variance 2 / (fan in + fan out) (Glorot and Bengio 2010)."""


@keras.saving.register_keras_serializable(package="k3seq")
class HeUniform(_Scaled):
    """Uniform with variance 2 / fan in (He et al. 2015, arXiv 1502.01852)."""


@keras.saving.register_keras_serializable(package="k3seq")
class HeNormal(_Scaled):
    """Normal, truncated at two deviations, with variance 2 / fan in (He et al. 2015, arXiv 1502.01852)."""


@keras.saving.register_keras_serializable(package="k3seq")
class LecunUniform(_Scaled):
    """Uniform with variance 1 / fan in (LeCun et al. 1998, "Efficient backprop")."""


@keras.saving.register_keras_serializable(package="k3seq")
class LecunNormal(_Scaled):
    """Normal, truncated at two deviations, with variance 1 / fan in (LeCun et al. 1998, "Efficient backprop")."""


@keras.saving.register_keras_serializable(package="k3seq")
class RandomUniform(_Drawn):
    """Uniform in [minval, maxval)."""

    def __init__(self, minval: float = -0.05, maxval: float = 0.05, *, seed: int):
        super().__init__(seed)
        self.minval, self.maxval = minval, maxval

    def get_config(self) -> dict[str, Any]:
        return {"minval": self.minval, "maxval": self.maxval, "seed": self.seed}


@keras.saving.register_keras_serializable(package="k3seq")
class RandomNormal(_Drawn):
    """Normal."""

    def __init__(self, mean: float = 0.0, stddev: float = 0.05, *, seed: int):
        super().__init__(seed)
        self.mean, self.stddev = mean, stddev

    def get_config(self) -> dict[str, Any]:
        return {"mean": self.mean, "stddev": self.stddev, "seed": self.seed}


@keras.saving.register_keras_serializable(package="k3seq")
class TruncatedNormal(RandomNormal):
    """Normal, redrawn beyond two deviations; `stddev` is the deviation before that."""


@keras.saving.register_keras_serializable(package="k3seq")
class Orthogonal(_Drawn):
    """Orthonormal rows or columns, times `gain` (Saxe et al. 2014, arXiv 1312.6120).

    Raises:
        UsageError: the shape has fewer than two axes.
    """

    def __init__(self, gain: float = 1.0, *, seed: int):
        super().__init__(seed)
        self.gain = gain

    def __call__(self, shape: Shape, dtype: Any = None) -> Tensor:
        if len(shape) < 2:
            raise UsageError(f"Expected a shape of at least two axes. Received: shape={tuple(shape)}")
        return super().__call__(shape, dtype)

    def get_config(self) -> dict[str, Any]:
        return {"gain": self.gain, "seed": self.seed}


@keras.saving.register_keras_serializable(package="k3seq")
class VarianceScaling(_Drawn):
    """Variance `scale / fan`, mean 0.

    Args:
        scale: number above 0.
        mode: "fan_in", "fan_out" or "fan_avg".
        distribution: "truncated_normal", "untruncated_normal" or "uniform".

    Raises:
        UsageError: an argument is not as above.
    """

    def __init__(self, scale: float = 1.0, mode: str = "fan_in", distribution: str = "truncated_normal", *, seed: int):
        super().__init__(seed)
        if scale <= 0:
            raise UsageError(f"Expected scale to be a number above 0. Received: scale={scale}")
        arguments.one_of(("fan_in", "fan_out", "fan_avg"), mode=mode)
        arguments.one_of(("truncated_normal", "untruncated_normal", "uniform"), distribution=distribution)
        self.scale, self.mode, self.distribution = scale, mode, distribution

    def get_config(self) -> dict[str, Any]:
        return {"scale": self.scale, "mode": self.mode, "distribution": self.distribution, "seed": self.seed}
