"""A small model in which one fault can be planted, on one backend only.

The layers are written out here, so that a fault is a line of code next to the right one, as in a
backend's kernel, a custom call or a port.
"""

import keras
import numpy as np
from keras import layers, ops

BACKEND = "torch"  # has the faults
B, S, V, D = 3, 5, 11, 6

# fault: (the check that must find it, the layer that must be named)
FAULTS = {
    "ids shifted by one": ("forward", "tokens"),
    "padding not zeroed": ("forward", "tokens"),
    "embedding not scaled": ("forward", "tokens"),
    "gradients of repeated ids not summed": ("gradients", "tokens"),
    "positions start at one": ("forward", "positions"),
    "two gates swapped": ("forward", "recurrent"),
    "state not carried": ("forward", "recurrent"),
    "off-by-one length": ("forward", "recurrent"),
    "missing forget bias": ("forward", "recurrent"),
    "missing recurrent bias": ("forward", "recurrent"),
    "steps in reverse order": ("forward", "recurrent"),
    "last state from a padded step": ("forward", "recurrent"),
    "hard sigmoid": ("forward", "recurrent"),
    "initial state of ones": ("forward", "recurrent"),
    "gradient cut between the steps": ("gradients", "recurrent"),
    "mask shifted by one": ("forward", "attention"),
    "mask ignored": ("forward", "attention"),
    "masked scores too high": ("forward", "attention"),
    "scores not scaled": ("forward", "attention"),
    "a transposed weight": ("forward", "attention"),
    "softmax over the queries": ("forward", "attention"),
    "keys and values swapped": ("forward", "attention"),
    "wrong epsilon": ("forward", "norm"),
    "unbiased variance": ("forward", "norm"),
    "missing beta": ("forward", "norm"),
    "residual missing": ("forward", "faulty_model"),
    "missing bias": ("forward", "head"),
    "another gelu": ("forward", "head"),
    "half precision": ("forward", "head"),
    "NaN at one place": ("forward", "head"),
    "training mode ignored": ("training", "norm"),
    "state not updated": ("forward", "norm"),
    "gradient doubled": ("gradients", "head"),
    "a weight without gradient": ("gradients", "head"),
    "an additional weight": ("parameters", "head"),
    "another dtype": ("parameters", "head"),
    "a frozen weight": ("parameters", "head"),
    "additional penalty": ("sgd", "head"),
    "a weight not saved": ("files", ""),
    "another start token": ("decode", ""),
}


class FaultyLayer(layers.Layer):
    """A layer that may have a fault."""

    def __init__(self, fault="none", **kwargs):
        super().__init__(**kwargs)
        self.fault = fault

    def has(self, fault):
        return self.fault == fault and keras.backend.backend() == BACKEND

    def get_config(self):
        return {**super().get_config(), "fault": self.fault}


@keras.saving.register_keras_serializable(package="faulty")
class Tokens(FaultyLayer):
    def build(self, ids_shape):
        self.table = self.add_weight(name="table", shape=(V, D))

    def call(self, ids):
        rows = ops.take(self.table, (ids + 1) % V if self.has("ids shifted by one") else ids, axis=0)
        if self.has("gradients of repeated ids not summed"):
            flat = ops.reshape(ids, (-1,))
            place = ops.arange(ops.shape(flat)[0], dtype="int32")
            again = ops.any((flat[:, None] == flat[None]) & (place[None] < place[:, None]), axis=1)
            again = ops.reshape(again, (*ids.shape, 1))
            rows = ops.where(again, ops.stop_gradient(rows), rows)
        if not self.has("padding not zeroed"):
            rows = rows * ops.cast(ids != 0, rows.dtype)[..., None]
        return rows if self.has("embedding not scaled") else rows * D**0.5


@keras.saving.register_keras_serializable(package="faulty")
class Positions(FaultyLayer):
    def call(self, x):
        first = 1 if self.has("positions start at one") else 0
        angles = (np.arange(S)[:, None] + first) / 10.0 ** np.linspace(0, 2, D)
        return x + ops.cast(np.sin(angles), x.dtype)


@keras.saving.register_keras_serializable(package="faulty")
class Recurrent(FaultyLayer):
    def build(self, x_shape, lengths_shape=None):
        self.kernel = self.add_weight(name="kernel", shape=(D, 4 * D))
        self.recurrent = self.add_weight(name="recurrent", shape=(D, 4 * D))
        self.bias = self.add_weight(name="bias", shape=(4 * D,))

    def call(self, x, lengths):
        sigmoid = ops.hard_sigmoid if self.has("hard sigmoid") else ops.sigmoid
        lengths = lengths + 1 if self.has("off-by-one length") else lengths
        h = c = ops.zeros_like(x[:, 0]) + (1.0 if self.has("initial state of ones") else 0.0)
        zeros, outputs = ops.zeros_like(h), []
        for t in reversed(range(S)) if self.has("steps in reverse order") else range(S):
            before = zeros if self.has("state not carried") else h
            before = ops.stop_gradient(before) if self.has("gradient cut between the steps") else before
            z = ops.matmul(x[:, t], self.kernel) + ops.matmul(before, self.recurrent)
            z = z if self.has("missing recurrent bias") else z + self.bias
            i, f, g, o = ops.split(z, 4, axis=-1)
            if self.has("two gates swapped"):
                i, f = f, i
            forget = f if self.has("missing forget bias") else f + 1.0
            new_c = sigmoid(forget) * c + sigmoid(i) * ops.tanh(g)
            new_h = sigmoid(o) * ops.tanh(new_c)
            real = (t < lengths)[:, None]
            kept = ops.ones_like(real) if self.has("last state from a padded step") else real
            h, c = ops.where(kept, new_h, h), ops.where(kept, new_c, c)
            outputs.append(ops.where(real, new_h, zeros))
        return ops.stack(outputs, axis=1), h


@keras.saving.register_keras_serializable(package="faulty")
class Attention(FaultyLayer):
    def build(self, x_shape, lengths_shape=None):
        for name in ("query", "key", "value"):
            setattr(self, name, self.add_weight(name=name, shape=(D, D)))

    def call(self, x, lengths):
        query = ops.transpose(self.query) if self.has("a transposed weight") else self.query
        q, k, v = (ops.matmul(x, kernel) for kernel in (query, self.key, self.value))
        if self.has("keys and values swapped"):
            k, v = v, k
        scores = ops.matmul(q, ops.transpose(k, (0, 2, 1)))
        scores = scores if self.has("scores not scaled") else scores * D**-0.5
        place = ops.arange(S, dtype="int32") + (1 if self.has("mask shifted by one") else 0)
        masked = -2.0 if self.has("masked scores too high") else -1e9
        if not self.has("mask ignored"):
            scores = ops.where(place[None, None] < lengths[:, None, None], scores, masked)
        return ops.matmul(ops.softmax(scores, axis=1 if self.has("softmax over the queries") else 2), v)


@keras.saving.register_keras_serializable(package="faulty")
class Norm(FaultyLayer):
    def build(self, x_shape):
        self.gamma = self.add_weight(name="gamma", shape=(D,), initializer="ones")
        self.beta = self.add_weight(name="beta", shape=(D,))
        self.calls = self.add_weight(name="calls", shape=(), initializer="zeros", trainable=False)

    def call(self, x, training=False):
        if not self.has("state not updated"):
            self.calls.assign_add(1.0)
        centred = x - ops.mean(x, axis=-1, keepdims=True)
        over = D - 1 if self.has("unbiased variance") else D
        variance = ops.sum(centred**2, axis=-1, keepdims=True) / over
        y = centred / ops.sqrt(variance + (1e-3 if self.has("wrong epsilon") else 1e-5)) * self.gamma
        y = y if self.has("missing beta") else y + self.beta
        return 1.1 * y if training and not self.has("training mode ignored") else y


@keras.saving.register_keras_serializable(package="faulty")
class Head(FaultyLayer):
    def build(self, x_shape):
        frozen = self.has("a frozen weight")
        self.kernel = self.add_weight(name="kernel", shape=(D, V), trainable=not frozen)
        dtype = "bfloat16" if self.has("another dtype") else None
        self.bias = self.add_weight(name="bias", shape=(V,), dtype=dtype)
        if self.has("an additional weight"):
            self.more = self.add_weight(name="more", shape=(V,))

    def call(self, x):
        kernel, bias = self.kernel, ops.cast(self.bias, x.dtype)
        if self.has("a weight without gradient"):
            bias = ops.stop_gradient(bias)
        if self.has("gradient doubled"):
            kernel = 2 * kernel - ops.stop_gradient(kernel)
        if self.has("additional penalty"):
            self.add_loss(0.1 * ops.sum(ops.square(self.kernel)))
        x = ops.gelu(x, approximate=self.has("another gelu"))
        if self.has("half precision"):
            x = ops.cast(ops.cast(x, "float16"), kernel.dtype)
        y = ops.matmul(x, kernel)
        y = y if self.has("missing bias") else y + bias
        if self.has("NaN at one place"):
            y = y + ops.cast(np.where(np.arange(V) == 2, np.nan, 0.0), y.dtype)
        return y

    def save_own_variables(self, store):
        super().save_own_variables(store)
        if self.has("a weight not saved"):
            store["0"] = np.zeros((D, V), "float32")


@keras.saving.register_keras_serializable(package="faulty")
class FaultyModel(keras.Model):
    """tokens (3, 5) int32 and lengths (3,) int32 -> logits (3, 5, 11)."""

    def __init__(self, fault="none", **kwargs):
        super().__init__(**{"name": "faulty_model", **kwargs})
        self.fault = fault
        self.tokens, self.positions = Tokens(fault, name="tokens"), Positions(fault, name="positions")
        self.recurrent, self.attention = Recurrent(fault, name="recurrent"), Attention(fault, name="attention")
        self.norm, self.head = Norm(fault, name="norm"), Head(fault, name="head")

    def build(self, inputs_shape):
        for layer in (self.tokens, self.positions, self.norm, self.head):
            layer.build((None, S, D))
        for layer in (self.recurrent, self.attention):
            layer.build((None, S, D), (None,))

    def call(self, inputs, training=False):
        lengths = inputs["lengths"]
        states, last = self.recurrent(self.positions(self.tokens(inputs["tokens"])), lengths)
        seen = self.attention(states, lengths)
        lost = self.fault == "residual missing" and keras.backend.backend() == BACKEND
        summed = (seen if lost else seen + states) + last[:, None]
        return self.head(self.norm(summed, training=training))

    def compute_output_spec(self, inputs, training=False):
        return keras.KerasTensor((B, S, V), self.compute_dtype)

    def get_config(self):
        return {**super().get_config(), "fault": self.fault}


def decode(model, inputs):
    """Greedy decoding, written out; the fault starts with another token."""
    late = model.fault == "another start token" and keras.backend.backend() == BACKEND
    tokens = np.zeros((B, S), "int32")
    tokens[:, 0] = np.arange(1, B + 1) + late
    for step in range(S - 1):
        logits = model({"tokens": tokens, "lengths": np.full(B, step + 1, "int32")})
        tokens[:, step + 1] = ops.convert_to_numpy(logits)[:, step].argmax(-1)
    return {"tokens": tokens[:, 1:]}
