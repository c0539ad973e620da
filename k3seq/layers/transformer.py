"""The Transformer block of Vaswani et al. 2017 (arXiv 1706.03762), normalised after each residual, on `keras.ops`.

Masks are arguments. The decoder has two forms that give the same numbers: a whole target at once, and one step with its
cache as argument and result.
"""

from typing import Any

import keras
from keras import ops

from k3seq import arguments
from k3seq.errors import UsageError
from k3seq.layers.dense import Dense
from k3seq.layers.dropout import Dropout
from k3seq.layers.masks import causal_mask, combine, key_mask, masked_softmax
from k3seq.typing import Shape, State, Tensor


class _ExplicitMask(keras.layers.Layer):
    """A layer whose `mask` is an argument only: without this, Keras would attach it to the output or warn."""

    def compute_mask(self, inputs: Tensor, previous_mask: Tensor) -> None:
        return None


@keras.saving.register_keras_serializable(package="k3seq")
class MultiHeadAttention(_ExplicitMask):
    """Scaled dot-product attention in `num_heads` heads of size `key_dim` (Vaswani et al. 2017, section 3.2).

    Keras' layer has kernels `(d, heads, key_dim)`. Here the same weights have the shape `(d, heads * key_dim)`, so that
    Glorot's fans are those of the matrix product. The count is the same: three times `(d + 1) * h * k`, and `(h * k + 1) * d`.

    `keys_values` and `attend` are the two halves of a call, so that a decoder can keep keys and values between steps.

    Args:
        num_heads: heads, an integer of at least 1.
        key_dim: size of a head, an integer of at least 1.

    Raises:
        UsageError: an argument is not such an integer.
    """

    def __init__(self, num_heads: int, key_dim: int, **kwargs: Any):
        super().__init__(**kwargs)
        arguments.positive(num_heads=num_heads, key_dim=key_dim)
        self.num_heads = num_heads
        self.key_dim = key_dim

    def build(self, query_shape: Shape, memory_shape: Shape | None = None) -> None:
        width = self.num_heads * self.key_dim
        memory_shape = query_shape if memory_shape is None else memory_shape
        self.query = self._dense(width, "query", query_shape)
        self.key = self._dense(width, "key", memory_shape)
        self.value = self._dense(width, "value", memory_shape)
        self.output_dense = self._dense(query_shape[-1], "output", (*query_shape[:-1], width))

    def _dense(self, units: Any, name: str, shape: Shape) -> Dense:
        layer = Dense(units, dtype=self.dtype_policy, name=name)
        layer.build(shape)
        return layer

    def call(self, query: Tensor, memory: Tensor = None, mask: Tensor = None) -> Tensor:
        """Attention of each query over the memory.

        Args:
            query: (b, t, d).
            memory: (b, s, m); None: the query itself.
            mask: (b or 1, t or 1, s) bool, True = keep; None keeps everything.

        Returns:
            (b, t, d). A query without any kept position gets a context of zeros, and so the output bias.
        """
        return self.attend(query, *self.keys_values(query if memory is None else memory), mask)

    def keys_values(self, memory: Tensor) -> tuple[Tensor, Tensor]:
        """Memory `(b, s, m)` -> keys and values, each `(b, s, heads, key_dim)`."""
        return self._split(self.key(memory)), self._split(self.value(memory))

    def attend(self, query: Tensor, key: Tensor, value: Tensor, mask: Tensor = None) -> Tensor:
        """`call`, from the result of `keys_values`."""
        query = self._split(self.query(query)) * self.key_dim**-0.5
        scores = ops.einsum("bthk,bshk->bhts", query, key)
        weights = masked_softmax(scores, None if mask is None else ops.expand_dims(mask, 1))
        context = ops.einsum("bhts,bshk->bthk", weights, value)
        return self.output_dense(ops.reshape(context, (-1, ops.shape(context)[1], self.num_heads * self.key_dim)))

    def _split(self, x: Tensor) -> Tensor:
        return ops.reshape(x, (-1, ops.shape(x)[1], self.num_heads, self.key_dim))

    def compute_output_shape(self, query_shape: Shape, memory_shape: Shape | None = None) -> Shape:
        return tuple(query_shape)

    def get_config(self) -> dict[str, Any]:
        return {**super().get_config(), "num_heads": self.num_heads, "key_dim": self.key_dim}


@keras.saving.register_keras_serializable(package="k3seq")
class AddNorm(keras.layers.Layer):
    """`LayerNorm(x + dropout(y))`, applied after every part of the block (section 5.4 for the dropout).

    Args:
        dropout: rate in training, in [0, 1].

    Raises:
        UsageError: `dropout` is not such a number.
    """

    def __init__(self, dropout: float = 0.0, **kwargs: Any):
        super().__init__(**kwargs)
        arguments.real(0, 1, dropout=dropout)
        self.dropout = Dropout(dropout, dtype=self.dtype_policy, name="dropout")
        self.norm = keras.layers.LayerNormalization(dtype=self.dtype_policy, name="norm")

    def build(self, x_shape: Shape) -> None:
        self.dropout.build(x_shape)
        self.norm.build(x_shape)

    def call(self, x: Tensor, y: Tensor, training: bool | None = None) -> Tensor:
        return self.norm(x + self.dropout(y, training=training))

    def compute_output_shape(self, x_shape: Shape, y_shape: Shape) -> Shape:
        return tuple(x_shape)

    def get_config(self) -> dict[str, Any]:
        return {**super().get_config(), "dropout": self.dropout.rate}


class _Block(_ExplicitMask):
    """What encoder and decoder blocks share: their sizes and the two dense layers."""

    def __init__(
        self, embed_dim: int, dense_dim: int, num_heads: int, key_dim: int | None = None, dropout: float = 0.0, **kwargs: Any
    ):
        super().__init__(**kwargs)
        arguments.positive(embed_dim=embed_dim, dense_dim=dense_dim, num_heads=num_heads)
        arguments.real(0, 1, dropout=dropout)
        self.embed_dim = embed_dim
        self.dense_dim = dense_dim
        self.num_heads = num_heads
        self.key_dim = embed_dim if key_dim is None else key_dim
        self.dropout = dropout
        self.dense_inner = Dense(dense_dim, activation="relu", dtype=self.dtype_policy, name="dense_inner")
        self.dense_outer = Dense(embed_dim, dtype=self.dtype_policy, name="dense_outer")
        self.dense_norm = self._norm("dense_norm")

    def _attention(self, name: str) -> MultiHeadAttention:
        return MultiHeadAttention(self.num_heads, self.key_dim, dtype=self.dtype_policy, name=name)

    def _norm(self, name: str) -> AddNorm:
        return AddNorm(self.dropout, dtype=self.dtype_policy, name=name)

    def _build_dense(self, x_shape: Shape) -> None:
        if x_shape[-1] != self.embed_dim:
            raise UsageError(f"Expected inputs of size embed_dim={self.embed_dim}. Received: shape {tuple(x_shape)}")
        self.dense_inner.build(x_shape)
        self.dense_outer.build((*x_shape[:-1], self.dense_dim))
        self.dense_norm.build(x_shape)

    def _dense(self, x: Tensor, training: bool | None = None) -> Tensor:
        return self.dense_norm(x, self.dense_outer(self.dense_inner(x)), training=training)

    def get_config(self) -> dict[str, Any]:
        return {
            **super().get_config(),
            "embed_dim": self.embed_dim,
            "dense_dim": self.dense_dim,
            "num_heads": self.num_heads,
            "key_dim": self.key_dim,
            "dropout": self.dropout,
        }


@keras.saving.register_keras_serializable(package="k3seq")
class TransformerEncoder(_Block):
    """Self-attention and two dense layers (relu, then linear), each with a residual and LayerNorm.

    Call it with x (b, s, embed_dim); it returns the same shape.

    Args:
        embed_dim: size of inputs and outputs.
        dense_dim: units of the inner dense layer.
        num_heads: heads of the attention.
        key_dim: size of a head; None: embed_dim.
        dropout: rate in training on the output of each part before the residual is added, in [0, 1].

    Raises:
        UsageError: a size is not an integer of at least 1, `dropout` is not such a number, or inputs are not of size
            `embed_dim`.
    """

    def __init__(
        self, embed_dim: int, dense_dim: int, num_heads: int, key_dim: int | None = None, dropout: float = 0.0, **kwargs: Any
    ):
        super().__init__(embed_dim, dense_dim, num_heads, key_dim, dropout, **kwargs)
        self.attention = self._attention("attention")
        self.attention_norm = self._norm("attention_norm")

    def build(self, x_shape: Shape) -> None:
        self.attention.build(x_shape)
        self.attention_norm.build(x_shape)
        self._build_dense(x_shape)

    def call(self, x: Tensor, mask: Tensor = None, training: bool | None = None) -> Tensor:
        """`mask (b, s)` bool: masked positions do not change the outputs at kept ones."""
        x = self.attention_norm(x, self.attention(x, mask=key_mask(mask)), training=training)
        return self._dense(x, training)

    def compute_output_shape(self, x_shape: Shape) -> Shape:
        return tuple(x_shape)


@keras.saving.register_keras_serializable(package="k3seq")
class TransformerDecoder(_Block):
    """Causal self-attention, attention over the encoder's output, two dense layers; each with a residual and LayerNorm.

    Arguments and errors as in `TransformerEncoder`. `call` takes a whole target; `start` and `step` take one position at a
    time and give the same numbers.
    """

    def __init__(
        self, embed_dim: int, dense_dim: int, num_heads: int, key_dim: int | None = None, dropout: float = 0.0, **kwargs: Any
    ):
        super().__init__(embed_dim, dense_dim, num_heads, key_dim, dropout, **kwargs)
        self.self_attention = self._attention("self_attention")
        self.self_norm = self._norm("self_norm")
        self.cross_attention = self._attention("cross_attention")
        self.cross_norm = self._norm("cross_norm")

    def build(self, x_shape: Shape, memory_shape: Shape) -> None:
        self.self_attention.build(x_shape)
        self.self_norm.build(x_shape)
        self.cross_attention.build(x_shape, memory_shape)
        self.cross_norm.build(x_shape)
        self._build_dense(x_shape)

    def call(
        self, x: Tensor, memory: Tensor, mask: Tensor = None, memory_mask: Tensor = None, training: bool | None = None
    ) -> Tensor:
        """`x (b, t, embed_dim)`, `memory (b, s, m)`, `mask (b, t)` and `memory_mask (b, s)` bool -> `(b, t, embed_dim)`."""
        visible = combine(causal_mask(ops.shape(x)[1]), key_mask(mask))
        x = self.self_norm(x, self.self_attention(x, mask=visible), training=training)
        x = self.cross_norm(x, self.cross_attention(x, memory, mask=key_mask(memory_mask)), training=training)
        return self._dense(x, training)

    def start(self, memory: Tensor, memory_mask: Tensor, steps: int) -> State:
        """The cache before the first step: keys and values of the memory, computed once, and zeros for those of the target.

        Args:
            memory: (b, s, m).
            memory_mask: (b, s) bool; None keeps everything.
            steps: largest number of steps.

        Returns:
            {"key", "value": (b, steps, heads, key_dim), "memory_key", "memory_value": (b, s, heads, key_dim),
            "memory_mask": (b, s) bool}.
        """
        memory_key, memory_value = self.cross_attention.keys_values(memory)
        batch = ops.shape(memory)[0]
        empty = ops.zeros((batch, steps, self.num_heads, self.key_dim), dtype=memory_key.dtype)
        kept = ops.ones(ops.shape(memory)[:2], dtype="bool") if memory_mask is None else ops.cast(memory_mask, "bool")
        return {"key": empty, "value": empty, "memory_key": memory_key, "memory_value": memory_value, "memory_mask": kept}

    def step(self, x: Tensor, cache: State, position: Tensor) -> tuple[Tensor, State]:
        """`x (b, embed_dim)` at `position (b,)` int32 of each row -> `(b, embed_dim)` and the cache with that position filled.

        The cache keeps its shapes. Positions are filled in order from 0. Keys and values of a position at or past the `steps`
        of `start` are not kept: the caller bounds it.
        """
        x, steps = x[:, None], ops.arange(cache["key"].shape[1], dtype="int32")[None, :]
        position = ops.cast(position, "int32")[:, None]
        here = (steps == position)[..., None, None]
        key, value = self.self_attention.keys_values(x)
        # Selected per position, not by a slice update, because rows may be at different positions.
        cache = {**cache, "key": ops.where(here, key, cache["key"]), "value": ops.where(here, value, cache["value"])}
        visible = key_mask(steps <= position)
        x = self.self_norm(x, self.self_attention.attend(x, cache["key"], cache["value"], visible))
        kept = key_mask(cache["memory_mask"])
        x = self.cross_norm(x, self.cross_attention.attend(x, cache["memory_key"], cache["memory_value"], kept))
        return self._dense(x)[:, 0], cache

    def compute_output_shape(self, x_shape: Shape, memory_shape: Shape) -> Shape:
        return tuple(x_shape)
