"""Reproducers: recurrent layers, loops and custom gradients."""

import keras
import numpy as np
from keras import ops, tree

from k3seq.layers import LSTM
from k3seq.parity.divergences.observation import Observation, raised

X = np.linspace(-1.0, 1.0, 12, dtype="float32").reshape(1, 4, 3)
STATES = [np.full((1, 2), 0.5, "float32"), np.full((1, 2), -0.5, "float32")]
LEADING = np.array([[False, True, True, True]])


def _lstm(masked, **options):
    """The outputs (4, 2) of a Keras LSTM whose weights are the same everywhere, from the states above."""
    layer = keras.layers.LSTM(2, return_sequences=True, **options)
    x, h, c = keras.Input((4, 3)), keras.Input((2,)), keras.Input((2,))
    mask = keras.Input((4,), dtype="bool")
    model = keras.Model([x, mask, h, c], layer(x, mask=mask if masked else None, initial_state=[h, c]))
    layer.set_weights([np.linspace(-1, 1, np.prod(w.shape), dtype="float32").reshape(w.shape) for w in layer.weights])
    return model.predict_on_batch([X, LEADING, *STATES])[0]


def leading_masked_steps():
    first = _lstm(True)[0]
    x, lengths = keras.Input((4, 3)), keras.Input((), dtype="int32")
    model = keras.Model([x, lengths], LSTM(2)(x, lengths=lengths)[0])
    none = model.predict_on_batch([X, np.array([0], "int32")])[0]
    two = model.predict_on_batch([X, np.array([2], "int32")])[0]
    right = not none.any() and two[:2].any() and not two[2:].any()
    return Observation(f"first output {first}", "k3seq.layers.LSTM: 0 where there is no token", bool(first.any()), bool(right))


def unrolled_masked_lstm():
    def parts(masked):
        return float(np.abs(_lstm(masked) - _lstm(masked, unroll=True)).max())

    masked, plain = parts(True), parts(False)
    return Observation(f"unrolled differs by {masked:.0e}", f"by {plain:.0e} without a mask", masked > 1e-3, plain < 1e-6)


def unrolled_backwards_masked_lstm():
    masked = raised(lambda: _lstm(True, unroll=True, go_backwards=True))
    rolled = raised(lambda: _lstm(True, go_backwards=True))
    return Observation(masked or "runs", rolled or "runs with unroll=False", bool(masked), not rolled)


class _Total(keras.layers.Layer):
    """The running sum over steps: by `ops.scan` over two sequences, or by `ops.cumsum`, which needs no number of steps."""

    def __init__(self, scans):
        super().__init__()
        self.scans = scans
        self.scale = self.add_weight(shape=(), initializer="ones")

    def call(self, x):
        if not self.scans:
            return ops.cumsum(x * self.scale, axis=1)
        parts = ops.moveaxis(x * self.scale, 1, 0)
        step = lambda carry, pair: (carry + pair[0] * pair[1], carry + pair[0] * pair[1])  # noqa: E731
        _, totals = ops.scan(step, ops.zeros_like(parts[0]), (parts, ops.ones_like(parts)))
        return ops.moveaxis(totals, 0, 1)

    def compute_output_shape(self, shape):
        return shape


def scan_over_unknown_steps():
    def fails(scans):
        inputs = keras.Input((None, 2))
        model = keras.Model(inputs, _Total(scans)(inputs))
        model.compile("sgd", "mse")
        batches = [np.ones((1, steps, 2), "float32") for steps in (3, 4)]
        return raised(lambda: [model.train_on_batch(batch, batch) for batch in batches])

    scan, without = fails(True), fails(False)
    return Observation(scan or "runs", without or "ops.cumsum runs", bool(scan), not without)


def scan_of_another_size():
    x = ops.convert_to_tensor(np.ones((3, 2), "float32"))

    def run(size):
        step = lambda carry, part: (carry, ops.ones((size,)))  # noqa: E731
        return ops.scan(step, ops.zeros((2,)), x)[1]

    other, same = raised(lambda: run(4)), raised(lambda: run(2))
    return Observation(other or "runs", same or "runs where the output is shaped like the carry", bool(other), not same)


class _Slope(keras.layers.Layer):
    """A weight that meets the output through `function(weight)`, so that a train step must differentiate it."""

    def __init__(self, function):
        super().__init__()
        self.function = function
        self.scale = self.add_weight(shape=(2,), initializer="ones", name="scale")

    def call(self, x):
        return x + self.function(ops.convert_to_tensor(self.scale))

    def compute_output_shape(self, shape):
        return shape


def _trained(function):
    """The weight after one SGD step at 1 on the sum of its outputs, or the exception as text."""
    inputs = keras.Input((2,))
    layer = _Slope(function)
    model = keras.Model(inputs, layer(inputs))
    model.compile(keras.optimizers.SGD(1.0), loss=lambda y, y_pred: ops.sum(y_pred))
    x = np.zeros((1, 2), "float32")
    return raised(lambda: model.train_on_batch(x, x)) or layer.scale.numpy()


def _told(result, right):
    """(whether it is right, in words) of what `_trained` gave."""
    fine = not isinstance(result, str) and bool(np.allclose(result, right))
    return fine, result if isinstance(result, str) else f"weight {result}"


def gradient_of_a_while_loop():
    def thrice(x):
        return ops.while_loop(lambda i, x: i < 3, lambda i, x: (i + 1, x * 2.0), (0, x))[1]

    def unrolled(x):
        return x * 2.0 * 2.0 * 2.0

    (fine, told), (control, control_told) = (_told(_trained(f), -7.0) for f in (thrice, unrolled))  # 1 - 2**3
    return Observation(told, f"{control_told} with a Python loop", not fine, control)


def _planted(slope, upstream, args):
    """`slope` times what flows back: torch hands that over as `upstream`, beside the inputs; JAX and TensorFlow alone."""
    return slope * sum(tree.flatten(args) if upstream is None else [upstream])


def custom_gradient_of_two_outputs():
    def run(outputs):
        @ops.custom_gradient
        def planted(x):
            values = (x, 2.0 * x) if outputs == 2 else 2.0 * x
            return values, lambda *args, upstream=None: _planted(5.0, upstream, args)

        return _told(_trained(lambda x: sum(tree.flatten(planted(x)))), 1.0 - 5.0 * outputs)

    (fine, told), (control, control_told) = run(2), run(1)
    return Observation(told, f"{control_told} with one output", not fine, control)


def custom_gradient_over_a_traced_value():
    def run(closes_over):
        def function(weight):
            twice = 2.0 * weight

            @ops.custom_gradient
            def planted(x):
                kept = twice if closes_over else 2.0 * x
                return x * kept, lambda *args, upstream=None: kept * _planted(1.0, upstream, args)

            return planted(weight)

        return _told(_trained(function), -1.0)

    (fine, told), (control, control_told) = run(True), run(False)
    return Observation(told, f"{control_told} where it closes over its own argument", not fine, control)
