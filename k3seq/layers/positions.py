"""Positions added to token vectors: the fixed sinusoids of Vaswani et al. and a learned table."""

import functools

import keras
import numpy as np
from keras import ops


@functools.lru_cache(maxsize=16)
def sinusoid(steps, embed_dim):
    """Table `(steps, embed_dim)` float32: column 2i is sin(p / 10000^(2i/units)), column 2i+1 the cosine of the same angle.

    Source: Vaswani et al. 2017, section 3.5 (arXiv 1706.03762). Computed in float64 NumPy, so that every backend adds the
    same bits, also at positions where a float32 angle has lost its last digits.
    """
    angles = np.arange(steps)[:, None] / 10000.0 ** (np.arange(embed_dim)[None, :] // 2 * 2 / embed_dim)
    table = np.where(np.arange(embed_dim)[None, :] % 2 == 0, np.sin(angles), np.cos(angles)).astype("float32")
    table.setflags(write=False)  # it is shared by every caller of the cache
    return table


class _Positions(keras.layers.Layer):
    """Adds row `offset + i` of a table of `max_steps` rows to position i; the table is what a subclass brings."""

    def __init__(self, max_steps, **kwargs):
        super().__init__(**kwargs)
        if max_steps < 1:
            raise ValueError(f"Expected max_steps of at least 1. Received: max_steps={max_steps}")
        self.max_steps = max_steps

    def call(self, x, offset=None):
        """`x (b, t, embed_dim)`, `offset (b,)` int32: the position of each row's first step, 0 when None."""
        steps = x.shape[1]
        if steps is not None and steps > self.max_steps:
            raise ValueError(f"Expected at most max_steps={self.max_steps} steps. Received: x of shape {tuple(x.shape)}")
        places = ops.arange(ops.shape(x)[1], dtype="int32")
        if offset is not None:
            places = ops.cast(offset, "int32")[:, None] + places[None, :]
        return x + ops.take(ops.cast(self.table(x.shape[-1]), x.dtype), places, axis=0)

    def compute_output_shape(self, x_shape):
        return tuple(x_shape)

    def get_config(self):
        return {**super().get_config(), "max_steps": self.max_steps}


@keras.saving.register_keras_serializable(package="k3seq")
class SinusoidalPositions(_Positions):
    """Adds `sinusoid(max_steps, embed_dim)` to `x (b, t, embed_dim)`: no weights.

    Raises: ValueError for `max_steps` below 1 or more than `max_steps` steps. An offset that leads past `max_steps` cannot be
    seen on the device: the caller bounds it.
    """

    def build(self, x_shape):
        """Nothing to make: built here so that a parent can build every sub-layer the same way."""

    def table(self, embed_dim):
        return sinusoid(self.max_steps, embed_dim)


@keras.saving.register_keras_serializable(package="k3seq")
class PositionEmbedding(_Positions):
    """Adds a learned vector per position to `x (b, t, embed_dim)`: `max_steps * embed_dim` weights.

    Raises: ValueError for `max_steps` below 1 or more than `max_steps` steps. An offset that leads past `max_steps` cannot be
    seen on the device: the caller bounds it.
    """

    def __init__(self, max_steps, embeddings_initializer="uniform", **kwargs):
        super().__init__(max_steps, **kwargs)
        self.embeddings_initializer = keras.initializers.get(embeddings_initializer)

    def build(self, x_shape):
        shape = (self.max_steps, x_shape[-1])
        self.embeddings = self.add_weight(shape=shape, initializer=self.embeddings_initializer, name="embeddings")

    def table(self, embed_dim):
        return self.embeddings

    def get_config(self):
        initializer = keras.initializers.serialize(self.embeddings_initializer)
        return {**super().get_config(), "embeddings_initializer": initializer}
