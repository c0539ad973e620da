"""Embeddings of token ids, with positions for layers that do not depend on the order of their inputs."""

import math
from typing import TYPE_CHECKING, Any

import keras
from keras import ops

from k3seq import arguments
from k3seq.errors import UsageError
from k3seq.layers.nested import Nested
from k3seq.layers.positions import PositionEmbedding, SinusoidalPositions
from k3seq.typing import Initializer, Shape, Tensor

POSITIONS = {None: None, "sinusoidal": SinusoidalPositions, "learned": PositionEmbedding}


@keras.saving.register_keras_serializable(package="k3seq")
class TokenEmbedding(keras.layers.Layer):
    """Token ids `(b, t)` int32 to vectors `(b, t, embed_dim)`.

    Args:
        vocabulary_size: number of ids, which are in [0, vocabulary_size). JAX does not report an id out of range on the device:
            check ids on the host.
        embed_dim: size of a vector.
        positions: None, "sinusoidal" (no weights) or "learned" (`max_steps * embed_dim` weights).
        max_steps: largest number of steps; required with positions, refused without.
        scale: multiply the vectors by sqrt(embed_dim) before positions are added (Vaswani et al. 2017, section 3.4), so that
            small initial vectors are not small beside the sinusoids.
        embeddings_initializer: of the token vectors.

    Raises:
        UsageError: an argument is not as above, or a row has more than `max_steps` steps.
    """

    def __init__(
        self,
        vocabulary_size: int,
        embed_dim: int,
        positions: str | None = None,
        max_steps: int | None = None,
        scale: bool = False,
        embeddings_initializer: Initializer = "uniform",
        **kwargs: Any,
    ):
        super().__init__(**kwargs)
        arguments.positive(vocabulary_size=vocabulary_size, embed_dim=embed_dim)
        arguments.one_of(POSITIONS, positions=positions)
        if (positions is None) != (max_steps is None):
            raise UsageError(f"Expected max_steps with positions only. Received: positions={positions!r}, {max_steps=}")
        self.vocabulary_size = vocabulary_size
        self.embed_dim = embed_dim
        self.positions = positions
        self.max_steps = max_steps
        self.scale = scale
        self.embeddings_initializer = keras.initializers.get(embeddings_initializer)
        kind: Any = POSITIONS[positions]
        self.position_layer = kind and kind(max_steps, dtype=self.dtype_policy, name="positions")

    def build(self, tokens_shape: Shape) -> None:
        shape = (self.vocabulary_size, self.embed_dim)
        self.embeddings = self.add_weight(shape=shape, initializer=self.embeddings_initializer, name="embeddings")
        if self.position_layer is not None:
            self.position_layer.build((*tokens_shape, self.embed_dim))

    def call(self, tokens: Tensor, offset: Tensor = None) -> Tensor:
        """Token ids `(b, t)` to vectors `(b, t, embed_dim)`.

        Args:
            tokens: (b, t) integers.
            offset: (b,) int32, the position of each row's first token, None for 0; without positions it has no effect.
        """
        x = ops.cast(ops.take(self.embeddings, ops.cast(tokens, "int32"), axis=0), self.compute_dtype)
        if self.scale:
            x = x * math.sqrt(self.embed_dim)
        return x if self.position_layer is None else self.position_layer(x, offset=offset)

    def compute_output_shape(self, tokens_shape: Shape) -> Shape:
        return (*tokens_shape, self.embed_dim)

    def get_config(self) -> dict[str, Any]:
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
    """`keras.layers.Embedding` with less overhead per call inside a layer of k3seq (see `Nested`)."""

    if TYPE_CHECKING:

        def __init__(self, input_dim: int, output_dim: int, *args: Any, **kwargs: Any): ...
