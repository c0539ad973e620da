"""The layers of the sliding-context encoder and decoder: attention of one head and dense layers over windows of fixed width.

In the source only the last `max(lengths)` positions of a window are queries; the positions before them stay as they are. Under
jit no shape can depend on the data, so all positions are computed and the bool mask `queries` selects those that are replaced.
"""

from typing import Any, ClassVar

import keras
from keras import ops

from k3seq import arguments
from k3seq.layers.dense import Dense
from k3seq.layers.masks import key_mask, length_mask, masked_softmax
from k3seq.typing import NDArray, Shape, Tensor


def last_positions(lengths: Tensor, width: int) -> Tensor:
    """The definition's queries: the last `max(lengths)` positions of a window, the same for each row.

    Where that is 0 the whole window is queries, as in the source, which slices with `x[:, -0:]`.

    Args:
        lengths: (batch,) int32, may exceed `width`.
        width: positions of the window.

    Returns:
        (1, width) bool.
    """
    longest = ops.max(lengths)
    positions = ops.arange(width, dtype="int32")[None, :]
    return ops.logical_or(positions >= width - longest, longest == 0)


def attend(x: Tensor, context: Tensor, q: Tensor, k: Tensor, v: Tensor, queries: Tensor, context_mask: Tensor = None) -> Tensor:
    """Scaled dot-product attention of some positions; the others pass unchanged.

    Args:
        x: (batch, n, embed_dim).
        context: (batch, m, embed_dim).
        q, k, v: (embed_dim, embed_dim).
        queries: bool, broadcasts to (batch, n), True where x is replaced by the result of attention.
        context_mask: (batch, m) bool, True = keep; None: all. A row that keeps none gives zeros.

    Returns:
        (batch, n, embed_dim)
    """
    scores = ops.matmul(ops.matmul(x, q), ops.transpose(ops.matmul(context, k), (0, 2, 1))) * (x.shape[-1] ** -0.5)
    weights = masked_softmax(scores, key_mask(context_mask))
    return ops.where(queries[..., None], ops.matmul(weights, ops.matmul(context, v)), x)


def cut(logits: Tensor, mask: Tensor) -> NDArray[Any]:
    """The positions of `logits` that the definition returns. For eager calls only, since the shape depends on the data.

    Args:
        logits: (batch, width, vocabulary_size).
        mask: (batch, width) bool, as of `Debed`.

    Returns:
        NumPy array (batch, longest, vocabulary_size).
    """
    kept = ops.convert_to_numpy(mask).any(axis=0)
    return ops.convert_to_numpy(logits)[:, kept]


@keras.saving.register_keras_serializable(package="k3seq")
class Embed(keras.layers.Layer):
    """Token embeddings times sqrt(embed_dim).

    Args:
        vocabulary_size: number of ids, an integer of at least 1.
        embed_dim: size of a vector, an integer of at least 1.

    Call arguments:
        tokens: (batch, steps) integers in [0, vocabulary_size).

    Returns:
        (batch, steps, embed_dim)

    Raises:
        UsageError: an argument is not such an integer.
    """

    def __init__(self, vocabulary_size: int, embed_dim: int, **kwargs: Any):
        super().__init__(**kwargs)
        arguments.positive(vocabulary_size=vocabulary_size, embed_dim=embed_dim)
        self.vocabulary_size, self.embed_dim = vocabulary_size, embed_dim
        self.embeddings_initializer = keras.initializers.GlorotUniform()

    def build(self, input_shape: Shape | None = None) -> None:
        self.embeddings = self.add_weight(
            name="embeddings", shape=(self.vocabulary_size, self.embed_dim), initializer=self.embeddings_initializer
        )

    def call(self, tokens: Tensor) -> Tensor:
        return ops.take(self.embeddings, tokens, axis=0) * self.embed_dim**0.5

    def get_config(self) -> dict[str, Any]:
        return {**super().get_config(), "vocabulary_size": self.vocabulary_size, "embed_dim": self.embed_dim}


@keras.saving.register_keras_serializable(package="k3seq")
class Attention(keras.layers.Layer):
    """`attend` with weights q, k and v (embed_dim, embed_dim), no bias.

    Args:
        embed_dim: size of a vector, an integer of at least 1.

    Call arguments: x, context, queries and context_mask as in `attend`.

    Raises:
        UsageError: `embed_dim` is not such an integer.
    """

    def __init__(self, embed_dim: int, **kwargs: Any):
        super().__init__(**kwargs)
        arguments.positive(embed_dim=embed_dim)
        self.embed_dim = embed_dim
        for name in "qkv":
            setattr(self, f"{name}_initializer", keras.initializers.GlorotUniform())

    def build(self, input_shape: Shape | None = None) -> None:
        shape = (self.embed_dim, self.embed_dim)
        self.q = self.add_weight(name="q", shape=shape, initializer=self.q_initializer)
        self.k = self.add_weight(name="k", shape=shape, initializer=self.k_initializer)
        self.v = self.add_weight(name="v", shape=shape, initializer=self.v_initializer)

    def call(self, x: Tensor, context: Tensor, queries: Tensor, context_mask: Tensor = None) -> Tensor:
        q, k, v = (ops.convert_to_tensor(weight) for weight in (self.q, self.k, self.v))
        return attend(x, context, q, k, v, queries, context_mask)

    def get_config(self) -> dict[str, Any]:
        return {**super().get_config(), "embed_dim": self.embed_dim}


class _Window(keras.layers.Layer):
    """What the layers over a window share: the sizes of the window and of the dense layer in `Conclusion`.

    Args:
        width: positions of the window, an integer of at least 1.
        embed_dim: size of a vector, an integer of at least 1.
        dense_dim: units of the dense layer, an integer of at least 1.

    Raises:
        UsageError: an argument is not such an integer.
    """

    def __init__(self, width: int, embed_dim: int, dense_dim: int, **kwargs: Any):
        super().__init__(**kwargs)
        arguments.positive(width=width, embed_dim=embed_dim, dense_dim=dense_dim)
        self.width, self.embed_dim, self.dense_dim = width, embed_dim, dense_dim

    def get_config(self) -> dict[str, Any]:
        return {**super().get_config(), "width": self.width, "embed_dim": self.embed_dim, "dense_dim": self.dense_dim}


@keras.saving.register_keras_serializable(package="k3seq")
class Conclusion(_Window):
    """Dense layers over the whole window: flatten, `dense_dim` units with bias and relu, back to the window without bias.

    Args:
        width, embed_dim, dense_dim: as in `_Window`.

    Call arguments:
        x: (batch, width, embed_dim).

    Returns:
        (batch, width, embed_dim)
    """

    def __init__(self, width: int, embed_dim: int, dense_dim: int, **kwargs: Any):
        super().__init__(width, embed_dim, dense_dim, **kwargs)
        self.inflate = Dense(dense_dim, activation="relu", name="inflate", dtype=self.dtype_policy)
        self.deflate = Dense(width * embed_dim, use_bias=False, name="deflate", dtype=self.dtype_policy)

    def build(self, input_shape: Shape | None = None) -> None:
        self.inflate.build((None, self.width * self.embed_dim))
        self.deflate.build((None, self.dense_dim))

    def call(self, x: Tensor) -> Tensor:
        y = self.deflate(self.inflate(ops.reshape(x, (-1, self.width * self.embed_dim))))
        return ops.reshape(y, (-1, self.width, self.embed_dim))


@keras.saving.register_keras_serializable(package="k3seq")
class Encoder(_Window):
    """One block of `Encode`: attention to itself, then `Conclusion`.

    Args:
        width, embed_dim: shape of the window, integers of at least 1.
        dense_dim: units of the dense layer, an integer of at least 1.

    Call arguments:
        x: (batch, width, embed_dim).
        queries: bool, broadcasts to (batch, width), the positions that attention replaces.
        x_mask: (batch, width) bool, the positions that attention sees; None: all.

    Returns:
        (batch, width, embed_dim)
    """

    def __init__(self, width: int, embed_dim: int, dense_dim: int, **kwargs: Any):
        super().__init__(width, embed_dim, dense_dim, **kwargs)
        self.reflect = Attention(embed_dim, name="reflect", dtype=self.dtype_policy)
        self.conclude = Conclusion(width, embed_dim, dense_dim, name="conclude", dtype=self.dtype_policy)

    def build(self, input_shape: Shape | None = None) -> None:
        self.reflect.build()
        self.conclude.build()

    def call(self, x: Tensor, queries: Tensor, x_mask: Tensor = None) -> Tensor:
        return self.conclude(self.reflect(x, x, queries, context_mask=x_mask))


@keras.saving.register_keras_serializable(package="k3seq")
class Decoder(_Window):
    """One block of `Decode`: attention to itself, attention to the encoder's output, then `Conclusion`.

    Args:
        width, embed_dim: shape of the decoder's window, integers of at least 1.
        dense_dim: units of the dense layer, an integer of at least 1.

    Call arguments:
        x: (batch, width, embed_dim).
        context: (batch, m, embed_dim), the encoder's output.
        queries: bool, broadcasts to (batch, width), the positions that attention replaces.
        x_mask, context_mask: (batch, width) and (batch, m) bool, the positions that attention sees; None: all.

    Returns:
        (batch, width, embed_dim)
    """

    def __init__(self, width: int, embed_dim: int, dense_dim: int, **kwargs: Any):
        super().__init__(width, embed_dim, dense_dim, **kwargs)
        self.reflect = Attention(embed_dim, name="reflect", dtype=self.dtype_policy)
        self.consider = Attention(embed_dim, name="consider", dtype=self.dtype_policy)
        self.conclude = Conclusion(width, embed_dim, dense_dim, name="conclude", dtype=self.dtype_policy)

    def build(self, input_shape: Shape | None = None) -> None:
        for layer in (self.reflect, self.consider, self.conclude):
            layer.build()

    def call(self, x: Tensor, context: Tensor, queries: Tensor, x_mask: Tensor = None, context_mask: Tensor = None) -> Tensor:
        y = self.reflect(x, x, queries, context_mask=x_mask)
        return self.conclude(self.consider(y, context, queries, context_mask=context_mask))


class _Stack(_Window):
    """`num_layers` blocks one after the other; `num_layers` is an integer of at least 1."""

    block: ClassVar[Any] = None

    def __init__(self, width: int, embed_dim: int, dense_dim: int, num_layers: int, **kwargs: Any):
        super().__init__(width, embed_dim, dense_dim, **kwargs)
        arguments.positive(num_layers=num_layers)
        self.num_layers = num_layers
        prefix = self.block.__name__.lower()
        self.blocks = [
            self.block(width, embed_dim, dense_dim, name=f"{prefix}_{i}", dtype=self.dtype_policy) for i in range(num_layers)
        ]

    def build(self, input_shape: Shape | None = None) -> None:
        for block in self.blocks:
            block.build()

    def get_config(self) -> dict[str, Any]:
        return {**super().get_config(), "num_layers": self.num_layers}


@keras.saving.register_keras_serializable(package="k3seq")
class Encode(_Stack):
    """`num_layers` blocks of `Encoder`, with its arguments and call arguments; `num_layers` is an integer of at least 1."""

    block = Encoder

    def call(self, x: Tensor, queries: Tensor, x_mask: Tensor = None) -> Tensor:
        for block in self.blocks:
            x = block(x, queries, x_mask=x_mask)
        return x


@keras.saving.register_keras_serializable(package="k3seq")
class Decode(_Stack):
    """`num_layers` blocks of `Decoder`, with its arguments and call arguments; all blocks see the same context."""

    block = Decoder

    def call(self, x: Tensor, context: Tensor, queries: Tensor, x_mask: Tensor = None, context_mask: Tensor = None) -> Tensor:
        for block in self.blocks:
            x = block(x, context, queries, x_mask=x_mask, context_mask=context_mask)
        return x


@keras.saving.register_keras_serializable(package="k3seq")
class Debed(keras.layers.Layer):
    """Logits over the vocabulary for each position of a window.

    Args:
        vocabulary_size, embed_dim: as in `Embed`.

    Call arguments:
        x: (batch, width, embed_dim).
        lengths: (batch,) int32.

    Returns:
        (logits, mask): (batch, width, vocabulary_size), and (batch, width) bool, True on the first `max(lengths)` positions.
        The source returns these positions alone (see `cut`). Here the width stays, since under jit no shape can depend on data.

    Raises:
        UsageError: an argument is not such an integer.
    """

    def __init__(self, vocabulary_size: int, embed_dim: int, **kwargs: Any):
        super().__init__(**kwargs)
        arguments.positive(vocabulary_size=vocabulary_size, embed_dim=embed_dim)
        self.vocabulary_size, self.embed_dim = vocabulary_size, embed_dim
        self.project = Dense(vocabulary_size, name="project", dtype=self.dtype_policy)

    def build(self, input_shape: Shape | None = None) -> None:
        self.project.build((None, None, self.embed_dim))

    def call(self, x: Tensor, lengths: Tensor) -> tuple[Tensor, Tensor]:
        return self.project(x), length_mask(ops.full_like(lengths, ops.max(lengths)), x.shape[1])

    def get_config(self) -> dict[str, Any]:
        return {**super().get_config(), "vocabulary_size": self.vocabulary_size, "embed_dim": self.embed_dim}
