"""Layers and models for the tests of the suite: equal on all backends, different on one, and some that end their process."""

import os
import time

import keras
from keras import ops

from k3seq.parity.case import Case, Spec

FAULTY_BACKEND = "torch"


def is_faulty():
    """Whether this process runs on the backend with the faults."""
    return os.environ["KERAS_BACKEND"] == FAULTY_BACKEND


class Shift(keras.layers.Layer):
    """Adds a weight, with a fault on one backend.

    Args:
        fault: "wrong" (other numbers from step 2 on), "wrong-float32" (the same, and an error in float64 on every backend),
            "more" (a second weight), "raises", "ends" (the process) or "waits" (a minute); empty: none.
    """

    def __init__(self, fault="", **kwargs):
        super().__init__(**kwargs)
        self.fault = fault

    def build(self, x_shape):
        self.shift = self.add_weight(name="shift", shape=(x_shape[-1],))
        if is_faulty() and self.fault == "more":
            self.more = self.add_weight(name="more", shape=(2,))

    def call(self, x):
        if is_faulty() and self.fault == "raises":
            raise RuntimeError("planted")
        if is_faulty() and self.fault == "ends":
            os._exit(3)
        if is_faulty() and self.fault == "waits":
            time.sleep(60)
        if self.fault == "wrong-float32" and self.compute_dtype == "float64":
            raise RuntimeError("planted: float32 only")
        late = ops.cast(ops.arange(x.shape[1]) >= 2, x.dtype)[None, :, None]
        return x + self.shift + late * (0.01 if is_faulty() and self.fault in ("wrong", "wrong-float32") else 0.0)


def model(fault=""):
    """dense, Shift, dense over (2, 4, 3)."""
    x = keras.Input((4, 3), batch_size=2)
    y = keras.layers.Dense(3, name="before")(x)
    return keras.Model(x, keras.layers.Dense(3, name="after")(Shift(fault, name="middle")(y)))


def embedded():
    """A functional model that knows its inputs."""
    x = keras.Input((None,), dtype="int32")
    return keras.Model(x, keras.layers.Dense(2)(keras.layers.Embedding(7, 3)(x)))


def stock():
    """A model with Keras' own train step. Of 24 ids below 7 most occur more than once."""
    x = keras.Input((6,), dtype="int32")
    return keras.Model(x, keras.layers.Dense(3, name="head")(keras.layers.Embedding(7, 5, name="tokens")(x)))


stock.example_inputs = Spec((4, 6), "int32", high=7)


def dense():
    """A layer with `example_inputs`."""
    return keras.layers.Dense(2)


dense.example_inputs = Spec((2, 3))
CASE = Case("dense", "parity.sample_layers:dense", inputs=Spec((2, 3)))
CASES = [CASE, Case("embedded", "parity.sample_layers:embedded", inputs=Spec((2, 3), "int32", high=7))]


class Chooser(keras.Model):
    """Decodes token 3 or 4: their scores differ by `gap`, with the opposite sign on one backend."""

    def __init__(self, gap, **kwargs):
        super().__init__(**kwargs)
        self.gap = gap
        self.built = True

    def call(self, inputs):
        return ops.cast(inputs["source"], "float32")

    def start(self, inputs):
        return {"source": ops.cast(inputs["source"], "int32")}

    def step(self, tokens, state):
        best = 2.0 + (self.gap if is_faulty() else -self.gap)
        row = ops.convert_to_tensor([0.0, 0.0, 0.0, 2.0, best], "float32")
        return ops.zeros_like(tokens, "float32")[:, None] + row[None, :], state
