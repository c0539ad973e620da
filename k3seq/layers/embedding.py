"""Token ids to vectors, with positions where the layers above cannot tell order."""

import math

import keras
from keras import ops

from k3seq.layers.nested import Nested
from k3seq.layers.positions import PositionEmbedding, SinusoidalPositions

POSITIONS = {None: None, "sinusoidal": SinusoidalPositions, "learned": PositionEmbedding}


@keras.saving.register_keras_serializable(package="k3seq")
class TokenEmbedding(keras.layers.Layer):
    """Token ids `(b, t)` int32 to vectors `(b, t, embed_dim)`.

    Args:
        vocabulary_size: ids are in [0, vocabulary_size). On the device an id out of range is silent on JAX: check on the host.
        embed_dim: size of a vector.
        positions: None, "sinusoidal" (no weights) or "learned" (`max_steps * embed_dim` weights).
        max_steps: the longest row that positions are for; needed with positions, refused without.
        scale: multiply the vectors by sqrt(units) before positions are added (Vaswani et al. 2017, section 3.4), so that
            small initial vectors are not drowned by the sinusoids.
        embeddings_initializer: of the token vectors.

    Raises: ValueError for a size below 1, unknown positions, `max_steps` missing or out of place, a row above `max_steps`.
    """

    def __init__(
        self,
        vocabulary_size,
        embed_dim,
        positions=None,
        max_steps=None,
        scale=False,
        embeddings_initializer="uniform",
        **kwargs,
    ):
        super().__init__(**kwargs)
        if vocabulary_size < 1 or embed_dim < 1:
            raise ValueError(
                f"Expected sizes of at least 1. Received: vocabulary_size={vocabulary_size}, embed_dim={embed_dim}"
            )
        if positions not in POSITIONS:
            raise ValueError(f"Expected positions to be one of {list(POSITIONS)}. Received: positions={positions!r}")
        if (positions is None) != (max_steps is None):
            raise ValueError(f"Expected max_steps with positions only. Received: positions={positions!r}, {max_steps=}")
        self.vocabulary_size = vocabulary_size
        self.embed_dim = embed_dim
        self.positions = positions
        self.max_steps = max_steps
        self.scale = scale
        self.embeddings_initializer = keras.initializers.get(embeddings_initializer)
        layer = POSITIONS[positions]
        self.position_layer = layer and layer(max_steps, dtype=self.dtype_policy, name="positions")

    def build(self, tokens_shape):
        shape = (self.vocabulary_size, self.embed_dim)
        self.embeddings = self.add_weight(shape=shape, initializer=self.embeddings_initializer, name="embeddings")
        if self.position_layer is not None:
            self.position_layer.build((*tokens_shape, self.embed_dim))

    def call(self, tokens, offset=None):
        """`offset (b,)` int32: the position of each row's first token, 0 when None; without positions it does nothing."""
        x = ops.cast(ops.take(self.embeddings, ops.cast(tokens, "int32"), axis=0), self.compute_dtype)
        if self.scale:
            x = x * math.sqrt(self.embed_dim)
        return x if self.position_layer is None else self.position_layer(x, offset=offset)

    def compute_output_shape(self, tokens_shape):
        return (*tokens_shape, self.embed_dim)

    def get_config(self):
        return {
            **super().get_config(),
            "vocabulary_size": self.vocabulary_size,
            "embed_dim": self.embed_dim,
            "positions": self.positions,
            "max_steps": self.max_steps,
            "scale": self.scale,
            "embeddings_initializer": keras.initializers.serialize(self.embeddings_initializer),
        }


@keras.saving.register_keras_serializable(package="k3seq")
class Embedding(Nested, keras.layers.Embedding):
    """`keras.layers.Embedding`, in a layer of k3seq only called."""
