"""Positions added to token vectors: the fixed sinusoids of Vaswani et al. and a learned table."""

import functools
from typing import Any

import keras
import numpy as np
from keras import ops

from k3seq import arguments
from k3seq.errors import UsageError
from k3seq.typing import Initializer, NDArray, Shape, Tensor


@functools.lru_cache(maxsize=16)
def sinusoid(steps: int, embed_dim: int) -> NDArray[np.float32]:
    """Table `(steps, embed_dim)` float32: column 2i is sin(p / 10000^(2i/embed_dim)), column 2i+1 the cosine of that angle.

    Source: Vaswani et al. 2017, section 3.5 (arXiv 1706.03762). It is computed in float64 NumPy, so that every backend adds the
    same bits, also at high positions, where a float32 angle is imprecise.
    """
    angles = np.arange(steps)[:, None] / 10000.0 ** (np.arange(embed_dim)[None, :] // 2 * 2 / embed_dim)
    table = np.where(np.arange(embed_dim)[None, :] % 2 == 0, np.sin(angles), np.cos(angles)).astype("float32")
    table.setflags(write=False)  # the cache gives the same array to every caller
    return table


class _Positions(keras.layers.Layer):
    """Adds row `offset + i` of a table of `max_steps` rows to position i; a subclass defines the table."""

    def __init__(self, max_steps: int, **kwargs: Any):
        super().__init__(**kwargs)
        arguments.positive(max_steps=max_steps)
        self.max_steps = max_steps

    def table(self, embed_dim: int) -> Tensor:
        """The vectors of all positions, `(max_steps, embed_dim)`."""
        raise NotImplementedError

    def call(self, x: Tensor, offset: Tensor = None) -> Tensor:
        """Adds the positions to `x (b, t, embed_dim)`; `offset (b,)` int32: position of each row's first step."""
        steps = x.shape[1]
        if steps is not None and steps > self.max_steps:
            raise UsageError(f"Expected at most max_steps={self.max_steps} steps. Received: x of shape {tuple(x.shape)}")
        positions = ops.arange(ops.shape(x)[1], dtype="int32")
        if offset is not None:
            positions = ops.cast(offset, "int32")[:, None] + positions[None, :]
        return x + ops.take(ops.cast(self.table(x.shape[-1]), x.dtype), positions, axis=0)

    def compute_output_shape(self, x_shape: Shape) -> Shape:
        return tuple(x_shape)

    def get_config(self) -> dict[str, Any]:
        return {**super().get_config(), "max_steps": self.max_steps}


@keras.saving.register_keras_serializable(package="k3seq")
class SinusoidalPositions(_Positions):
    """Adds `sinusoid(max_steps, embed_dim)` to `x (b, t, embed_dim)`, without weights. See `PositionEmbedding`."""

    def build(self, x_shape: Shape) -> None:
        """No weights."""

    def table(self, embed_dim: int) -> Tensor:
        return sinusoid(self.max_steps, embed_dim)


@keras.saving.register_keras_serializable(package="k3seq")
class PositionEmbedding(_Positions):
    """Adds a learned vector per position to `x (b, t, embed_dim)`: `max_steps * embed_dim` weights.

    Args:
        max_steps: largest number of steps, an integer of at least 1.
        embeddings_initializer: of the vectors.

    Raises:
        UsageError: `max_steps` is not such an integer, or the input has more steps. An offset that leads past `max_steps` is
            not seen on the device: the caller bounds it.
    """

    def __init__(self, max_steps: int, embeddings_initializer: Initializer = "uniform", **kwargs: Any):
        super().__init__(max_steps, **kwargs)
        self.embeddings_initializer = keras.initializers.get(embeddings_initializer)

    def build(self, x_shape: Shape) -> None:
        shape = (self.max_steps, x_shape[-1])
        self.embeddings = self.add_weight(shape=shape, initializer=self.embeddings_initializer, name="embeddings")

    def table(self, embed_dim: int) -> Tensor:
        return self.embeddings

    def get_config(self) -> dict[str, Any]:
        initializer = keras.initializers.serialize(self.embeddings_initializer)
        return {**super().get_config(), "embeddings_initializer": initializer}
