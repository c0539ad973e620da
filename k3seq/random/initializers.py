"""Keras' random initialisers, drawn on the host: an integer seed gives the same weights on every backend.

    keras.layers.Dense(8, kernel_initializer=GlorotUniform(seed=3))

Names, arguments and distributions are those of `keras.initializers`, and so is the rule of an integer seed: the same seed and
shape give the same numbers again, so give every weight a seed of its own (or draw all of a model with
`k3seq.random.initialize`, which keys them by path). There is no seed None.
"""

import keras
import numpy as np
from keras import ops

from k3seq.errors import UsageError
from k3seq.random.bits import Stream
from k3seq.random.weights import draw


class _Drawn(keras.initializers.Initializer):
    """What all of them share: the seed, and `draw` by the class name.

    Calling it with a shape and a float dtype gives a tensor, float32 numbers rounded to that dtype.

    Raises:
        UsageError: the seed is not an integer in 0..2**64-1, or the dtype is not a float type.
    """

    def __init__(self, seed):
        Stream(seed)
        self.seed = seed

    def __call__(self, shape, dtype=None):
        dtype = keras.backend.standardize_dtype(dtype or keras.config.floatx())
        if not keras.backend.is_float_dtype(dtype):
            raise UsageError(f"Expected a float dtype. Received: dtype={dtype}")
        kind = type(self).__name__
        value = draw(kind, self.get_config(), tuple(shape), Stream(self.seed, kind))
        return ops.cast(ops.convert_to_tensor(np.asarray(value, np.float32)), dtype)

    def get_config(self):
        return {"seed": self.seed}


class _Scaled(_Drawn):
    """Variance scaled by the fans."""

    def __init__(self, *, seed):
        super().__init__(seed)


@keras.saving.register_keras_serializable(package="k3seq")
class GlorotUniform(_Scaled):
    """Uniform with variance 2 / (fan in + fan out) (Glorot and Bengio 2010)."""


@keras.saving.register_keras_serializable(package="k3seq")
class GlorotNormal(_Scaled):
    """Normal, cut at two deviations, with variance 2 / (fan in + fan out) (Glorot and Bengio 2010)."""


@keras.saving.register_keras_serializable(package="k3seq")
class HeUniform(_Scaled):
    """Uniform with variance 2 / fan in (He et al. 2015, arXiv 1502.01852)."""


@keras.saving.register_keras_serializable(package="k3seq")
class HeNormal(_Scaled):
    """Normal, cut at two deviations, with variance 2 / fan in (He et al. 2015, arXiv 1502.01852)."""


@keras.saving.register_keras_serializable(package="k3seq")
class LecunUniform(_Scaled):
    """Uniform with variance 1 / fan in (LeCun et al. 1998, "Efficient backprop")."""


@keras.saving.register_keras_serializable(package="k3seq")
class LecunNormal(_Scaled):
    """Normal, cut at two deviations, with variance 1 / fan in (LeCun et al. 1998, "Efficient backprop")."""


@keras.saving.register_keras_serializable(package="k3seq")
class RandomUniform(_Drawn):
    """Uniform in [minval, maxval)."""

    def __init__(self, minval=-0.05, maxval=0.05, *, seed):
        super().__init__(seed)
        self.minval, self.maxval = minval, maxval

    def get_config(self):
        return {"minval": self.minval, "maxval": self.maxval, "seed": self.seed}


@keras.saving.register_keras_serializable(package="k3seq")
class RandomNormal(_Drawn):
    """Normal."""

    def __init__(self, mean=0.0, stddev=0.05, *, seed):
        super().__init__(seed)
        self.mean, self.stddev = mean, stddev

    def get_config(self):
        return {"mean": self.mean, "stddev": self.stddev, "seed": self.seed}


@keras.saving.register_keras_serializable(package="k3seq")
class TruncatedNormal(RandomNormal):
    """Normal, redrawn beyond two deviations; `stddev` is that before the cut."""


@keras.saving.register_keras_serializable(package="k3seq")
class Orthogonal(_Drawn):
    """Orthonormal rows or columns, times `gain` (Saxe et al. 2014, arXiv 1312.6120).

    Raises:
        UsageError: when called for a shape of fewer than two axes.
    """

    def __init__(self, gain=1.0, *, seed):
        super().__init__(seed)
        self.gain = gain

    def __call__(self, shape, dtype=None):
        if len(shape) < 2:
            raise UsageError(f"Expected a shape of at least two axes. Received: shape={tuple(shape)}")
        return super().__call__(shape, dtype)

    def get_config(self):
        return {"gain": self.gain, "seed": self.seed}


@keras.saving.register_keras_serializable(package="k3seq")
class VarianceScaling(_Drawn):
    """Variance `scale / fan`, mean 0.

    Args:
        mode: "fan_in", "fan_out" or "fan_avg". distribution: "truncated_normal", "untruncated_normal" or "uniform".

    Raises:
        UsageError: scale is not positive, or mode or distribution is none of these.
    """

    def __init__(self, scale=1.0, mode="fan_in", distribution="truncated_normal", *, seed):
        super().__init__(seed)
        if scale <= 0:
            raise UsageError(f"Expected a positive scale. Received: scale={scale}")
        if mode not in ("fan_in", "fan_out", "fan_avg"):
            raise UsageError(f"Expected mode to be fan_in, fan_out or fan_avg. Received: mode={mode!r}")
        if distribution not in ("truncated_normal", "untruncated_normal", "uniform"):
            raise UsageError(
                f"Expected truncated_normal, untruncated_normal or uniform. Received: distribution={distribution!r}"
            )
        self.scale, self.mode, self.distribution = scale, mode, distribution

    def get_config(self):
        return {"scale": self.scale, "mode": self.mode, "distribution": self.distribution, "seed": self.seed}
