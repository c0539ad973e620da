"""The Transformer block of Vaswani et al. 2017 (arXiv 1706.03762), normalised after each residual, on `keras.ops`.

Masks are arguments. The decoder has two forms that give the same numbers: a whole target at once, and one step with its
cache as argument and result.
"""

import keras
from keras import ops

from k3seq.layers.dense import Dense
from k3seq.layers.dropout import Dropout
from k3seq.layers.masks import causal_mask, combine, key_mask, masked_softmax


class _ExplicitMask(keras.layers.Layer):
    """A layer whose `mask` is an argument only: Keras would else let it ride on the output, or warn that it does not."""

    def compute_mask(self, inputs, previous_mask):
        return None


@keras.saving.register_keras_serializable(package="k3seq")
class MultiHeadAttention(_ExplicitMask):
    """Scaled dot-product attention in `num_heads` heads of size `key_dim`.

    Keras' own layer holds kernels `(d, heads, key_dim)`; here the same weights lie as `(d, heads * key_dim)`, so that Glorot's
    fans are those of the matrix product that is done. The count is the same: `(d + 1) * h * k` thrice and `(h * k + 1) * d`.

    It is split in `keys_values` and `attend` so that a decoder can keep keys and values between steps.
    """

    def __init__(self, num_heads, key_dim, **kwargs):
        super().__init__(**kwargs)
        if num_heads < 1 or key_dim < 1:
            raise ValueError(f"Expected sizes of at least 1. Received: num_heads={num_heads}, key_dim={key_dim}")
        self.num_heads = num_heads
        self.key_dim = key_dim

    def build(self, query_shape, memory_shape=None):
        width = self.num_heads * self.key_dim
        memory_shape = query_shape if memory_shape is None else memory_shape
        self.query = self._dense(width, "query", query_shape)
        self.key = self._dense(width, "key", memory_shape)
        self.value = self._dense(width, "value", memory_shape)
        self.output_dense = self._dense(query_shape[-1], "output", (*query_shape[:-1], width))

    def _dense(self, units, name, shape):
        layer = Dense(units, dtype=self.dtype_policy, name=name)
        layer.build(shape)
        return layer

    def call(self, query, memory=None, mask=None):
        """`query (b, t, d)` over `memory (b, s, m)` (None: itself), `mask (b or 1, t or 1, s)` bool -> `(b, t, d)`.

        A query that may look nowhere gets a context of zeros, and so the output bias.
        """
        return self.attend(query, *self.keys_values(query if memory is None else memory), mask)

    def keys_values(self, memory):
        """`(b, s, m)` -> keys and values, each `(b, s, heads, key_dim)`."""
        return self._split(self.key(memory)), self._split(self.value(memory))

    def attend(self, query, key, value, mask=None):
        """`call`, with keys and values already made."""
        query = self._split(self.query(query)) * self.key_dim**-0.5
        scores = ops.einsum("bthk,bshk->bhts", query, key)
        weights = masked_softmax(scores, None if mask is None else ops.expand_dims(mask, 1))
        context = ops.einsum("bhts,bshk->bthk", weights, value)
        return self.output_dense(ops.reshape(context, (-1, ops.shape(context)[1], self.num_heads * self.key_dim)))

    def _split(self, x):
        return ops.reshape(x, (-1, ops.shape(x)[1], self.num_heads, self.key_dim))

    def compute_output_shape(self, query_shape, memory_shape=None):
        return tuple(query_shape)

    def get_config(self):
        return {**super().get_config(), "num_heads": self.num_heads, "key_dim": self.key_dim}


@keras.saving.register_keras_serializable(package="k3seq")
class AddNorm(keras.layers.Layer):
    """`LayerNorm(x + dropout(y))`: what stands around every part of the block (section 5.4 for the dropout)."""

    def __init__(self, dropout=0.0, **kwargs):
        super().__init__(**kwargs)
        self.dropout = Dropout(dropout, dtype=self.dtype_policy, name="dropout")
        self.norm = keras.layers.LayerNormalization(dtype=self.dtype_policy, name="norm")

    def build(self, x_shape):
        self.dropout.build(x_shape)
        self.norm.build(x_shape)

    def call(self, x, y, training=None):
        return self.norm(x + self.dropout(y, training=training))

    def compute_output_shape(self, x_shape, y_shape):
        return tuple(x_shape)

    def get_config(self):
        return {**super().get_config(), "dropout": self.dropout.rate}


class _Block(_ExplicitMask):
    """What encoder and decoder blocks share: their sizes, the two dense layers, and how a part is built."""

    def __init__(self, embed_dim, dense_dim, num_heads, key_dim=None, dropout=0.0, **kwargs):
        super().__init__(**kwargs)
        if embed_dim < 1 or dense_dim < 1:
            raise ValueError(f"Expected sizes of at least 1. Received: embed_dim={embed_dim}, dense_dim={dense_dim}")
        self.embed_dim = embed_dim
        self.dense_dim = dense_dim
        self.num_heads = num_heads
        self.key_dim = embed_dim if key_dim is None else key_dim
        self.dropout = dropout
        self.dense_inner = Dense(dense_dim, activation="relu", dtype=self.dtype_policy, name="dense_inner")
        self.dense_outer = Dense(embed_dim, dtype=self.dtype_policy, name="dense_outer")
        self.dense_norm = self._norm("dense_norm")

    def _attention(self, name):
        return MultiHeadAttention(self.num_heads, self.key_dim, dtype=self.dtype_policy, name=name)

    def _norm(self, name):
        return AddNorm(self.dropout, dtype=self.dtype_policy, name=name)

    def _build_dense(self, x_shape):
        if x_shape[-1] != self.embed_dim:
            raise ValueError(f"Expected inputs of {self.embed_dim} units (embed_dim). Received: shape {tuple(x_shape)}")
        self.dense_inner.build(x_shape)
        self.dense_outer.build((*x_shape[:-1], self.dense_dim))
        self.dense_norm.build(x_shape)

    def _dense(self, x, training=None):
        return self.dense_norm(x, self.dense_outer(self.dense_inner(x)), training=training)

    def get_config(self):
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
    """Self-attention and two dense layers (relu, then linear), each with a residual and LayerNorm: `(b, s, embed_dim)` to same.

    Args:
        embed_dim: units of input and output.
        dense_dim: units of the inner dense layer.
        num_heads: heads of the attention.
        key_dim: units of one head; embed_dim when None.
        dropout: rate on what each part adds to the residual, in training.

    Raises: ValueError for a size below 1 or an input whose units are not `embed_dim`.
    """

    def __init__(self, embed_dim, dense_dim, num_heads, key_dim=None, dropout=0.0, **kwargs):
        super().__init__(embed_dim, dense_dim, num_heads, key_dim, dropout, **kwargs)
        self.attention = self._attention("attention")
        self.attention_norm = self._norm("attention_norm")

    def build(self, x_shape):
        self.attention.build(x_shape)
        self.attention_norm.build(x_shape)
        self._build_dense(x_shape)

    def call(self, x, mask=None, training=None):
        """`mask (b, s)` bool: what lies at a masked position reaches no kept one."""
        x = self.attention_norm(x, self.attention(x, mask=key_mask(mask)), training=training)
        return self._dense(x, training)

    def compute_output_shape(self, x_shape):
        return tuple(x_shape)


@keras.saving.register_keras_serializable(package="k3seq")
class TransformerDecoder(_Block):
    """Causal self-attention, attention over the encoder's output, two dense layers; each with a residual and LayerNorm.

    Arguments and errors as `TransformerEncoder`. `call` takes a whole target; `start` and `step` take one position at a time
    and give the same numbers.
    """

    def __init__(self, embed_dim, dense_dim, num_heads, key_dim=None, dropout=0.0, **kwargs):
        super().__init__(embed_dim, dense_dim, num_heads, key_dim, dropout, **kwargs)
        self.self_attention = self._attention("self_attention")
        self.self_norm = self._norm("self_norm")
        self.cross_attention = self._attention("cross_attention")
        self.cross_norm = self._norm("cross_norm")

    def build(self, x_shape, memory_shape):
        self.self_attention.build(x_shape)
        self.self_norm.build(x_shape)
        self.cross_attention.build(x_shape, memory_shape)
        self.cross_norm.build(x_shape)
        self._build_dense(x_shape)

    def call(self, x, memory, mask=None, memory_mask=None, training=None):
        """`x (b, t, embed_dim)`, `memory (b, s, m)`, `mask (b, t)` and `memory_mask (b, s)` bool -> `(b, t, embed_dim)`."""
        seen = combine(causal_mask(ops.shape(x)[1]), key_mask(mask))
        x = self.self_norm(x, self.self_attention(x, mask=seen), training=training)
        x = self.cross_norm(x, self.cross_attention(x, memory, mask=key_mask(memory_mask)), training=training)
        return self._dense(x, training)

    def start(self, memory, memory_mask, steps):
        """The cache before the first step: keys and values of `memory (b, s, m)`, made once, and room for `steps` of its own.

        Own keys and values are `(b, steps, heads, key_dim)`, those of the memory `(b, s, heads, key_dim)`; the mask is kept
        beside them as `(b, s)` bool. `memory_mask` None keeps everything.
        """
        memory_key, memory_value = self.cross_attention.keys_values(memory)
        batch = ops.shape(memory)[0]
        room = ops.zeros((batch, steps, self.num_heads, self.key_dim), dtype=memory_key.dtype)
        kept = ops.ones(ops.shape(memory)[:2], dtype="bool") if memory_mask is None else ops.cast(memory_mask, "bool")
        return {"key": room, "value": room, "memory_key": memory_key, "memory_value": memory_value, "memory_mask": kept}

    def step(self, x, cache, position):
        """`x (b, embed_dim)` at `position (b,)` int32 of each row -> `(b, embed_dim)` and the cache with that position filled.

        The cache keeps its shapes. Positions are filled in order from 0; one at or past the room given to `start` has
        nowhere to be kept, and the caller bounds it.
        """
        x, steps = x[:, None], ops.arange(cache["key"].shape[1], dtype="int32")[None, :]
        position = ops.cast(position, "int32")[:, None]
        here = (steps == position)[..., None, None]
        key, value = self.self_attention.keys_values(x)
        # A choice per position instead of a slice update: rows may stand at different positions.
        cache = {**cache, "key": ops.where(here, key, cache["key"]), "value": ops.where(here, value, cache["value"])}
        seen = key_mask(steps <= position)
        x = self.self_norm(x, self.self_attention.attend(x, cache["key"], cache["value"], seen))
        kept = key_mask(cache["memory_mask"])
        x = self.cross_norm(x, self.cross_attention.attend(x, cache["memory_key"], cache["memory_value"], kept))
        return self._dense(x)[:, 0], cache

    def compute_output_shape(self, x_shape, memory_shape):
        return tuple(x_shape)
