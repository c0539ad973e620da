"""A model small enough for calculations by hand: an embedding and a dense layer, with a label for each token."""

import keras
import numpy as np
from keras import ops

from k3seq.backend import StepMixin

TOKENS = np.array([[0, 1, 1], [1, 2, 1]], "int32")
LABELS = np.array([[1, 2, 0], [2, 2, 1]], "int32")
WEIGHTS = np.array([[1, 0, 0], [1, 1, 1]], "float32")


def values(model):
    return [np.array(ops.convert_to_numpy(variable)) for variable in model.variables]


def weights(model):
    return [np.array(ops.convert_to_numpy(variable)) for variable in model.trainable_variables]


def largest_difference(first, second):
    return max(np.max(np.abs(a - b)) for a, b in zip(first, second, strict=True))


class Tagger(StepMixin, keras.Model):
    """Embedding and dense: tokens (b, t) -> logits (b, t, 3)."""

    def __init__(self, **kwargs):
        super().__init__(**kwargs)
        self.embedding = keras.layers.Embedding(3, 2, name="embedding")
        self.dense = keras.layers.Dense(3, name="dense")
        self.embedding.build((None, None))
        self.dense.build((None, None, 2))
        self.built = True
        draw = np.random.default_rng(0)
        for variable in self.trainable_variables:
            variable.assign(draw.normal(size=variable.shape).astype("float32"))

    def call(self, tokens):
        return self.dense(self.embedding(tokens))
