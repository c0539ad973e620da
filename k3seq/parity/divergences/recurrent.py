"""Reproducers: recurrent layers, loops and custom gradients."""

from collections.abc import Callable, Sequence
from typing import Any

import keras
import numpy as np
from keras import ops, tree

from k3seq.layers import LSTM
from k3seq.parity.divergences.observation import Observation, raised
from k3seq.parity.subject import array
from k3seq.typing import NDArray, Shape, Tensor

X = np.linspace(-1.0, 1.0, 12, dtype="float32").reshape(1, 4, 3)
STATES = [np.full((1, 2), 0.5, "float32"), np.full((1, 2), -0.5, "float32")]
LEADING = np.array([[False, True, True, True]])


def _lstm(masked: bool, **options: Any) -> NDArray[Any]:
    """The outputs (4, 2) of a Keras LSTM with fixed weights and the initial states above."""
    layer = keras.layers.LSTM(2, return_sequences=True, **options)
    x, h, c = keras.Input((4, 3)), keras.Input((2,)), keras.Input((2,))
    mask = keras.Input((4,), dtype="bool")
    model = keras.Model([x, mask, h, c], layer(x, mask=mask if masked else None, initial_state=[h, c]))
    layer.set_weights([np.linspace(-1, 1, np.prod(w.shape), dtype="float32").reshape(w.shape) for w in layer.weights])
    return model.predict_on_batch([X, LEADING, *STATES])[0]


def leading_masked_steps() -> Observation:
    first = _lstm(True)[0]
    x, lengths = keras.Input((4, 3)), keras.Input((), dtype="int32")
    model = keras.Model([x, lengths], LSTM(2)(x, lengths=lengths)[0])
    none = model.predict_on_batch([X, np.array([0], "int32")])[0]
    two = model.predict_on_batch([X, np.array([2], "int32")])[0]
    right = not none.any() and two[:2].any() and not two[2:].any()
    return Observation(f"first output {first}", "k3seq.layers.LSTM: 0 where there is no token", bool(first.any()), bool(right))


def unrolled_masked_lstm() -> Observation:
    def difference(masked: bool) -> float:
        return float(np.abs(_lstm(masked) - _lstm(masked, unroll=True)).max())

    masked, plain = difference(True), difference(False)
    return Observation(f"unrolled differs by {masked:.0e}", f"by {plain:.0e} without a mask", masked > 1e-3, plain < 1e-6)


def unrolled_backwards_masked_lstm() -> Observation:
    masked = raised(lambda: _lstm(True, unroll=True, go_backwards=True))
    rolled = raised(lambda: _lstm(True, go_backwards=True))
    return Observation(masked or "runs", rolled or "runs with unroll=False", bool(masked), not rolled)


class _Total(keras.layers.Layer):
    """The running sum over steps: by `ops.scan` over two sequences, or by `ops.cumsum`, which needs no number of steps."""

    def __init__(self, scans: bool):
        super().__init__()
        self.scans = scans
        self.scale = self.add_weight(shape=(), initializer="ones")

    def call(self, x: Tensor) -> Tensor:
        if not self.scans:
            return ops.cumsum(x * self.scale, axis=1)
        parts: Tensor = ops.moveaxis(x * self.scale, 1, 0)
        step = lambda carry, pair: (carry + pair[0] * pair[1], carry + pair[0] * pair[1])  # noqa: E731
        scanned: Any = ops.scan(step, ops.zeros_like(parts[0]), (parts, ops.ones_like(parts)))
        return ops.moveaxis(scanned[1], 0, 1)

    def compute_output_shape(self, shape: Shape) -> Shape:
        return shape


def scan_over_unknown_steps() -> Observation:
    def fails(scans: bool) -> str | None:
        inputs = keras.Input((None, 2))
        model = keras.Model(inputs, _Total(scans)(inputs))
        model.compile("sgd", "mse")
        batches = [np.ones((1, steps, 2), "float32") for steps in (3, 4)]
        return raised(lambda: [model.train_on_batch(batch, batch) for batch in batches])

    scan, without = fails(True), fails(False)
    return Observation(scan or "runs", without or "ops.cumsum runs", bool(scan), not without)


def scan_of_another_size() -> Observation:
    x = ops.convert_to_tensor(np.ones((3, 2), "float32"))

    def scan(size: int) -> Tensor:
        step = lambda carry, part: (carry, ops.ones((size,)))  # noqa: E731
        scanned: Any = ops.scan(step, ops.zeros((2,)), x)
        return scanned[1]

    other, same = raised(lambda: scan(4)), raised(lambda: scan(2))
    return Observation(other or "runs", same or "runs where the output is shaped like the carry", bool(other), not same)


class _Added(keras.layers.Layer):
    """Adds `function(weight)` to its input, so that a train step differentiates the function."""

    def __init__(self, function: Callable[[Tensor], Tensor]):
        super().__init__()
        self.function = function
        self.scale = self.add_weight(shape=(2,), initializer="ones", name="scale")

    def call(self, x: Tensor) -> Tensor:
        return x + self.function(ops.convert_to_tensor(self.scale))

    def compute_output_shape(self, shape: Shape) -> Shape:
        return shape


def _trained(function: Callable[[Tensor], Tensor]) -> NDArray[Any] | str:
    """The weight after one SGD step with learning rate 1 on the sum of the outputs, or the exception as text."""
    inputs = keras.Input((2,))
    layer = _Added(function)
    model = keras.Model(inputs, layer(inputs))
    model.compile(keras.optimizers.SGD(1.0), loss=lambda y, y_pred: ops.sum(y_pred))
    x = np.zeros((1, 2), "float32")
    return raised(lambda: model.train_on_batch(x, x)) or layer.scale.numpy()


def _check(result: NDArray[Any] | str, expected: float) -> tuple[bool, str]:
    """(whether the result of `_trained` is the expected weight, the result as text)."""
    right = not isinstance(result, str) and bool(np.allclose(result, expected))
    return right, result if isinstance(result, str) else f"weight {result}"


def gradient_of_a_while_loop() -> Observation:
    def doubled_thrice(x: Tensor) -> Tensor:
        looped: Any = ops.while_loop(lambda i, x: i < 3, lambda i, x: (i + 1, x * 2.0), (0, x))
        return looped[1]

    def unrolled(x: Tensor) -> Tensor:
        return x * 2.0 * 2.0 * 2.0

    (right, seen), (control, control_seen) = (_check(_trained(f), -7.0) for f in (doubled_thrice, unrolled))  # 1 - 2**3
    return Observation(seen, f"{control_seen} with a Python loop", not right, control)


def _scaled(factor: Tensor, upstream: Tensor, args: Sequence[Tensor]) -> Tensor:
    """`factor` times the upstream gradient: a keyword besides the inputs on torch, the only arguments on JAX and TensorFlow."""
    return factor * sum(tree.flatten(args) if upstream is None else [upstream])


def custom_gradient_of_two_outputs() -> Observation:
    def trained(outputs: int) -> tuple[bool, str]:
        @ops.custom_gradient
        def custom(x: Tensor) -> Any:
            values = (x, 2.0 * x) if outputs == 2 else 2.0 * x
            return values, lambda *args, upstream=None: _scaled(5.0, upstream, args)

        return _check(_trained(lambda x: sum(tree.flatten(custom(x)))), 1.0 - 5.0 * outputs)

    (right, seen), (control, control_seen) = trained(2), trained(1)
    return Observation(seen, f"{control_seen} with one output", not right, control)


def custom_gradient_over_a_traced_value() -> Observation:
    def trained(closes_over: bool) -> tuple[bool, str]:
        def function(weight: Tensor) -> Tensor:
            twice = 2.0 * weight

            @ops.custom_gradient
            def custom(x: Tensor) -> Any:
                kept = twice if closes_over else 2.0 * x
                return x * kept, lambda *args, upstream=None: kept * _scaled(1.0, upstream, args)

            return custom(weight)

        return _check(_trained(function), -1.0)

    (right, seen), (control, control_seen) = trained(True), trained(False)
    return Observation(seen, f"{control_seen} where it closes over its own argument", not right, control)


class _Cell(keras.layers.Layer):
    """Adds its input to a vector; its state holds a matrix (batch, 2, 3) besides, first or last."""

    def __init__(self, matrix_first: bool):
        super().__init__()
        self.state_size = [(2, 3), 3] if matrix_first else [3, (2, 3)]
        self.output_size = 3
        self.order = 1 if matrix_first else -1

    def get_initial_state(self, batch_size: int | None = None) -> list[Tensor]:
        return [ops.zeros((batch_size, 2, 3)), ops.zeros((batch_size, 3))][:: self.order]

    def call(self, x: Tensor, states: Sequence[Tensor]) -> tuple[Tensor, list[Tensor]]:
        matrix, total = list(states)[:: self.order]
        total = total + x
        return total, [matrix + 1.0, total][:: self.order]


def state_of_rank_three() -> Observation:
    mask = np.array([[True, False, True, True]])

    def outputs(matrix_first: bool) -> NDArray[Any]:
        layer = keras.layers.RNN(_Cell(matrix_first), return_sequences=True)
        return array(layer(X, mask=mask))[0]

    kept = np.where(mask[0][:, None], X[0], 0.0).cumsum(axis=0)
    failed = raised(lambda: outputs(True))
    wrong = bool(failed) or outputs(True).shape != kept.shape or not np.allclose(outputs(True), kept, atol=1e-6)
    right = np.allclose(outputs(False), kept, atol=1e-6)
    seen = failed or ("other outputs" if wrong else "right")
    return Observation(seen, "right with the vector first" if right else "wrong with the vector first", wrong, bool(right))
