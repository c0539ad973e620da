"""A functional model with several inputs and outputs: a support ticket's priority and department."""

import keras
from keras import layers, ops

from k3seq.backend import StepMixin
from k3seq.layers.embedding import TokenEmbedding
from k3seq.layers.masks import masked_mean
from k3seq.layers.transformer import TransformerEncoder

LOSSES = {"priority": "binary_crossentropy", "department": "categorical_crossentropy"}
LOSS_WEIGHTS = {"priority": 1.0, "department": 0.2}


@keras.saving.register_keras_serializable(package="k3seq")
class DocumentClassifier(StepMixin, keras.Model):
    """A functional `keras.Model` that trains with k3seq's step; made by `document_classifier`."""


@keras.saving.register_keras_serializable(package="k3seq")
class MaskedMean(layers.Layer):
    """Mean of `x (b, s, d)` over the steps kept by `keep (b, s)` bool: `(b, d)`, zeros where none is kept."""

    def build(self, x_shape, keep_shape):
        """No weights."""

    def call(self, x, keep):
        return masked_mean(x, keep)

    def compute_output_shape(self, x_shape, keep_shape):
        return (x_shape[0], x_shape[-1])


def document_classifier(vocabulary_size=10_000, max_steps=100, tags=12, departments=4, embed_dim=64, dense_dim=64, num_heads=2):
    """title, body, tags -> priority, department.

    Both texts go through one embedding (they share their words), each through a Transformer encoder of its own and the mean
    over its tokens; the tags join them before the two outputs.

    Args:
        vocabulary_size: ids, 0 is padding. max_steps: tokens of a title and of a body. tags: 0/1 flags. departments: classes.
        embed_dim: size of embeddings and encoders. dense_dim: size of the encoders' inner layer. num_heads: of
        `embed_dim // num_heads` each.

    Returns:
        A `DocumentClassifier`, not compiled: from title and body `(b, max_steps)` int32 and tags `(b, tags)` float32, as a
        list in this order or a dict by these names, to [priority `(b, 1)`, department `(b, departments)`], probabilities.
        Targets come as a list or a dict too; `LOSSES` and `LOSS_WEIGHTS` are what `compile` takes.

    Raises:
        ValueError: when a size is not positive or heads do not divide units.
    """
    if num_heads < 1 or embed_dim % num_heads:
        raise ValueError(f"Expected units to be a multiple of heads. Received: embed_dim={embed_dim}, num_heads={num_heads}")
    embedding = TokenEmbedding(
        vocabulary_size, embed_dim, positions="sinusoidal", max_steps=max_steps, scale=True, name="embedding"
    )
    title = keras.Input((max_steps,), dtype="int32", name="title")
    body = keras.Input((max_steps,), dtype="int32", name="body")
    flags = keras.Input((tags,), name="tags")

    def summary(tokens):
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
    # Lists, not dicts: Keras then takes lists in this order and dicts by name, where a model of dicts refuses lists.
    return DocumentClassifier([title, body, flags], outputs, name="document_classifier")
