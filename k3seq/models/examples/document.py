"""A functional model with several inputs and outputs: a support ticket's priority and department."""

from typing import Any

import keras
from keras import layers, ops

from k3seq import arguments
from k3seq.backend import StepMixin
from k3seq.layers.embedding import TokenEmbedding
from k3seq.layers.masks import masked_mean
from k3seq.layers.transformer import TransformerEncoder
from k3seq.typing import Shape, Tensor

LOSSES = {"priority": "binary_crossentropy", "department": "categorical_crossentropy"}
LOSS_WEIGHTS = {"priority": 1.0, "department": 0.2}


@keras.saving.register_keras_serializable(package="k3seq")
class DocumentClassifier(StepMixin, keras.Model):
    """A functional `keras.Model` that trains with k3seq's step; made by `document_classifier`."""


@keras.saving.register_keras_serializable(package="k3seq")
class MaskedMean(layers.Layer):
    """Mean of `x (b, s, d)` over the steps kept by `keep (b, s)` bool: `(b, d)`, zeros where none is kept."""

    def build(self, x_shape: Shape, keep_shape: Shape) -> None:
        """No weights."""

    def call(self, x: Tensor, keep: Tensor) -> Tensor:
        return masked_mean(x, keep)

    def compute_output_shape(self, x_shape: Shape, keep_shape: Shape) -> Shape:
        return (x_shape[0], x_shape[-1])


def document_classifier(
    vocabulary_size: int = 10_000,
    max_steps: int = 100,
    tags: int = 12,
    departments: int = 4,
    embed_dim: int = 64,
    dense_dim: int = 64,
    num_heads: int = 2,
) -> DocumentClassifier:
    """title, body, tags -> priority, department.

    Title and body share one embedding. Each has its own Transformer encoder, followed by the mean over its tokens. Both means
    and the tags are concatenated before the two outputs.

    Args:
        vocabulary_size: number of ids; 0 is padding.
        max_steps: tokens of a title, and of a body.
        tags: number of 0/1 flags.
        departments: number of classes.
        embed_dim: size of embeddings and encoders.
        dense_dim: units of the encoders' inner layer.
        num_heads: attention heads, of size `embed_dim // num_heads` each.

    Returns:
        A `DocumentClassifier`, not compiled: from title and body `(b, max_steps)` int32 and tags `(b, tags)` float32, as a
        list in this order or a dict by these names, to [priority `(b, 1)`, department `(b, departments)`], probabilities.
        Targets may be a list or a dict too; `LOSSES` and `LOSS_WEIGHTS` are arguments for `compile`.

    Raises:
        UsageError: a size is not an integer of at least 1, or `num_heads` does not divide `embed_dim`.
    """
    arguments.positive(
        vocabulary_size=vocabulary_size,
        max_steps=max_steps,
        tags=tags,
        departments=departments,
        embed_dim=embed_dim,
        dense_dim=dense_dim,
        num_heads=num_heads,
    )
    arguments.divisible("num_heads", embed_dim=embed_dim, num_heads=num_heads)
    embedding = TokenEmbedding(
        vocabulary_size, embed_dim, positions="sinusoidal", max_steps=max_steps, scale=True, name="embedding"
    )
    title = keras.Input((max_steps,), dtype="int32", name="title")
    body = keras.Input((max_steps,), dtype="int32", name="body")
    flags = keras.Input((tags,), name="tags")

    def summary(tokens: Any) -> Any:
        keep = ops.not_equal(tokens, 0)
        encoder = TransformerEncoder(
            embed_dim, dense_dim, num_heads, key_dim=embed_dim // num_heads, name=f"{tokens.name}_encoder"
        )
        return MaskedMean(name=f"{tokens.name}_mean")(encoder(embedding(tokens), mask=keep), keep)

    features = layers.Concatenate(name="features")([summary(title), summary(body), flags])
    outputs = [
        layers.Dense(1, activation="sigmoid", name="priority")(features),
        layers.Dense(departments, activation="softmax", name="department")(features),
    ]
    # Lists, because Keras then accepts lists in this order and dicts by name; a model of dicts refuses lists.
    return DocumentClassifier([title, body, flags], outputs, name="document_classifier")
