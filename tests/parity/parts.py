"""Layers for the tests of the suite: equal everywhere, unlike on one backend, and such that end their process."""

import os
import time

import keras
from keras import ops

from k3seq.parity.case import Case, Spec

ONE = "torch"  # where the faults are


def here():
    return os.environ["KERAS_BACKEND"] == ONE


class Shift(keras.layers.Layer):
    """Adds a weight; on one backend `how` happens: other numbers late, a second weight, an error, an end, a long wait.

    "narrow" has the other numbers, and cannot be computed in float64 on any backend.
    """

    def __init__(self, how="", **kwargs):
        super().__init__(**kwargs)
        self.how = how

    def build(self, x_shape):
        self.shift = self.add_weight(name="shift", shape=(x_shape[-1],))
        if here() and self.how == "more":
            self.more = self.add_weight(name="more", shape=(2,))

    def call(self, x):
        if here() and self.how == "raises":
            raise RuntimeError("planted")
        if here() and self.how == "ends":
            os._exit(3)
        if here() and self.how == "waits":
            time.sleep(60)
        if self.how == "narrow" and self.compute_dtype == "float64":
            raise RuntimeError("planted: float32 alone")
        late = ops.cast(ops.arange(x.shape[1]) >= 2, x.dtype)[None, :, None]
        return x + self.shift + late * (0.01 if here() and self.how in ("wrong", "narrow") else 0.0)


def factory(how=""):
    x = keras.Input((4, 3), batch_size=2)
    y = keras.layers.Dense(3, name="before")(x)
    return keras.Model(x, keras.layers.Dense(3, name="after")(Shift(how, name="middle")(y)))


def plain():
    x = keras.Input((None,), dtype="int32")
    return keras.Model(x, keras.layers.Dense(2)(keras.layers.Embedding(7, 3)(x)))


def stock():
    """A plain Keras model that trains by Keras' own step; of 24 ids out of 7 most come more than once."""
    x = keras.Input((6,), dtype="int32")
    return keras.Model(x, keras.layers.Dense(3, name="head")(keras.layers.Embedding(7, 5, name="tokens")(x)))


stock.example_inputs = Spec((4, 6), "int32", high=7)


def told():
    return keras.layers.Dense(2)


told.example_inputs = Spec((2, 3))
CASE = Case("plain", "parity.parts:told", inputs=Spec((2, 3)))
CASES = [CASE, Case("second", "parity.parts:plain", inputs=Spec((2, 3), "int32", high=7))]


class Chooser(keras.Model):
    """Decodes token 3 or 4: their scores are `gap` apart, and one backend has them the other way round."""

    def __init__(self, gap, **kwargs):
        super().__init__(**kwargs)
        self.gap = gap
        self.built = True

    def call(self, inputs):
        return ops.cast(inputs["source"], "float32")

    def start(self, inputs):
        return {"source": ops.cast(inputs["source"], "int32")}

    def step(self, tokens, state):
        best = 2.0 + (self.gap if here() else -self.gap)
        row = ops.convert_to_tensor([0.0, 0.0, 0.0, 2.0, best], "float32")
        return ops.zeros_like(tokens, "float32")[:, None] + row[None, :], state
