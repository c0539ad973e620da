"""What every backend has, in `keras.ops` alone. `__all__` is the list of these names, the only one.

A module of a backend (`jax.py`, `tensorflow.py`, `torch.py`) defines the names that it does faster, or that need its framework,
with the signatures that stand here; `k3seq.backend` takes the others from here. A backend without a module, such as NumPy, runs
on this file: forward passes, decoding and evaluation, but no gradients, so that it cannot train.
"""

import importlib
from collections.abc import Callable, Sequence
from typing import Any, NoReturn

import keras
from keras import ops, tree

from k3seq.backend import keras_internals
from k3seq.backend.step import StepContract
from k3seq.errors import UsageError
from k3seq.typing import NDArray, Nested, Tensor

__all__ = [
    "StepMixin",
    "affine",
    "compiled",
    "crossentropies",
    "dense",
    "describe",
    "gru_sequence",
    "known",
    "lstm_sequence",
    "ready",
    "synchronize",
    "unroll",
    "value_and_grad",
]


def describe() -> dict[str, Any]:
    """What runs here: a dict of backend, version, keras, devices, jit (what `jit_compile="auto"` means) and kernels."""
    name = keras.backend.backend()
    return {
        "backend": name,
        "version": getattr(importlib.import_module(name), "__version__", "unknown"),
        "keras": keras.__version__,
        "devices": ["cpu"],
        "jit": False,
        "kernels": {f"{kind}_sequence": "a Python loop of keras.ops" for kind in ("lstm", "gru")},
    }


def synchronize(value: Nested) -> Nested:
    """Waits until every tensor in `value` is computed; returns `value`."""
    tree.map_structure(ops.convert_to_numpy, value)
    return value


def value_and_grad(function: Callable[..., Any], aux: bool = False) -> Callable[..., Any]:
    """A function of the same arguments that returns (value, gradient for the first argument).

    Args:
        function: pure; from a nested structure of float tensors, and more arguments, to a scalar.
        aux: `function` returns (scalar, anything else); `value` is then this pair.

    Raises:
        UsageError: the backend computes no gradients.
    """
    _no_gradients()


def _no_gradients() -> NoReturn:
    raise UsageError(
        f"Expected a backend that trains: KERAS_BACKEND=jax, tensorflow or torch. Received: {keras.backend.backend()}, "
        "on which k3seq runs forward passes and decoding only"
    )


def compiled(function: Callable[..., Any], variables: Sequence[Any] = (), jit: bool | None = None) -> Callable[..., Any]:
    """The fastest way to call a pure function of nested tensors many times.

    Args:
        function: reads `variables`, changes none of them.
        variables: the Keras variables whose present values each call shall see.
        jit: compile; None: the backend's default.

    Returns:
        A callable with `compilations()`, how often it was compiled (0 where it runs eagerly).
    """

    def call(*args):
        return function(*tree.map_structure(ops.convert_to_tensor, args))

    call.compilations = lambda: 0  # pyright: ignore[reportFunctionMemberAccess] - a function with one number to report
    return call


def dense(gradient: Tensor) -> Tensor:
    """A gradient with one value per weight. (On TensorFlow an embedding's comes in slices.)"""
    return gradient


def affine(x: Tensor, kernel: Tensor, bias: Tensor | None = None) -> Tensor:
    """`x @ kernel + bias` as one product of all rows: x (..., inputs), kernel (inputs, units), bias (units,) or None."""
    product = ops.matmul(x, kernel)
    return product if bias is None else product + bias


def known(value: Any) -> NDArray[Any] | None:
    """The value as a NumPy array, or None where it is not known yet: inside a trace, or symbolic."""
    if isinstance(value, keras.KerasTensor) or (ops.is_tensor(value) and keras_internals.has_placeholders()):
        return None
    return ops.convert_to_numpy(value)


def ready(layer: keras.layers.Layer, args: tuple[Any, ...], kwargs: dict[str, Any]) -> bool:
    """Whether `layer.call(*args, **kwargs)` does all that `layer(*args, **kwargs)` would do (see `layers.nested`)."""
    return False


def crossentropies(labels: Tensor, logits: Tensor, smoothing: float) -> Tensor:
    """Cross-entropy of every token.

    Args:
        labels: (b, t) int ids, or (b, t, v) float distributions. logits: (b, t, v) float32.
        smoothing: share of the target that is spread evenly over the vocabulary.

    Returns:
        (b, t) float32.
    """
    # The log-probabilities of all tokens are never made: XLA on a CPU would write them to memory to read one in each row.
    top = ops.stop_gradient(ops.max(logits, axis=-1))
    normaliser = ops.log(ops.sum(ops.exp(logits - top[..., None]), axis=-1))
    if len(labels.shape) == len(logits.shape):
        chosen = ops.sum(ops.cast(labels, "float32") * (logits - (top + normaliser)[..., None]), axis=-1)
    else:
        index = ops.expand_dims(ops.cast(labels, "int32"), -1)
        chosen = ops.squeeze(ops.take_along_axis(logits, index, axis=-1), -1) - top - normaliser
    if not smoothing:
        return -chosen
    return -(1.0 - smoothing) * chosen - smoothing * (ops.mean(logits, axis=-1) - top - normaliser)


def lstm_sequence(
    x: Tensor, lengths: Tensor | None, h: Tensor, c: Tensor, kernel: Tensor, recurrent_kernel: Tensor, bias: Tensor
) -> tuple[Tensor, Tensor, Tensor]:
    """All steps of an LSTM, gates in the order i, f, g, o. Reverse-mode derivatives only.

    Args:
        x: (b, s, inputs) float. lengths: (b,) int, real steps of right-padded rows, or None when no row is padded.
        h, c: (b, d) initial states. kernel: (inputs, 4d). recurrent_kernel: (d, 4d). bias: (4d,).

    Returns:
        (outputs, h, c): (b, s, d), zero at padding; and the states after each row's last real step, (b, d).
    """

    def cell(projected, h, c):
        i, f, g, o = ops.split(projected + ops.matmul(h, recurrent_kernel), 4, axis=-1)
        c = ops.sigmoid(f) * c + ops.sigmoid(i) * ops.tanh(g)
        return ops.sigmoid(o) * ops.tanh(c), c

    outputs, (h, c) = _sequence(cell, affine(x, kernel, bias), lengths, (h, c))
    return outputs, h, c


def gru_sequence(
    x: Tensor, lengths: Tensor | None, h: Tensor, kernel: Tensor, recurrent_kernel: Tensor, bias: Tensor
) -> tuple[Tensor, Tensor]:
    """All steps of a GRU, gates in the order z, r, h, the reset gate on the recurrent product. Reverse-mode derivatives only.

    Args:
        x: (b, s, inputs) float. lengths: (b,) int, real steps of right-padded rows, or None when no row is padded.
        h: (b, d) initial state. kernel: (inputs, 3d). recurrent_kernel: (d, 3d). bias: (2, 3d).

    Returns:
        (outputs, h): (b, s, d), zero at padding; and the state after each row's last real step, (b, d).
    """

    def cell(projected, h):
        xz, xr, xh = ops.split(projected, 3, axis=-1)
        hz, hr, hh = ops.split(affine(h, recurrent_kernel, bias[1]), 3, axis=-1)
        z = ops.sigmoid(xz + hz)
        return (z * h + (1.0 - z) * ops.tanh(xh + ops.sigmoid(xr + hr) * hh),)

    outputs, (h,) = _sequence(cell, affine(x, kernel, bias[0]), lengths, (h,))
    return outputs, h


def _sequence(cell, projected, lengths, states):
    """(outputs, states) of a cell over all steps: projected (b, s, gates), the output being the first state."""
    outputs = []
    for time in range(projected.shape[1]):
        after = cell(projected[:, time], *states)
        if lengths is None:
            states, output = after, after[0]
        else:
            real = (time < lengths)[:, None]
            states = tuple(ops.where(real, new, old) for new, old in zip(after, states, strict=True))
            output = ops.where(real, after[0], ops.zeros_like(after[0]))
        outputs.append(output)
    return ops.stack(outputs, axis=1), states


def unroll(
    step: Callable[[Tensor, Nested, Nested], tuple[Nested, Nested]],
    going: Callable[[Nested], Tensor],
    carry: Nested,
    blank: Nested,
    length: Any = None,
    slices: Nested = None,
    whole: bool = False,
) -> tuple[Nested, Nested]:
    """Steps a recurrence while `going(carry)` holds, at most `length` times; differentiable.

    It is a Python loop here, and on every backend outside of a trace.

    Args:
        step: (time, now, carry) -> (carry, output): time an int32 scalar, now the entry of `slices` at that time. Structure,
            shapes and dtypes of carry do not change; output is like `blank`.
        going: carry -> bool scalar.
        carry: nested structure of tensors.
        blank: nested structure of tensors, the output of a step that does not run.
        length: int; None for no limit, where the loop is not traced on JAX. In a TensorFlow graph also a scalar tensor.
        slices: nested structure of tensors (length, ...), or None.
        whole: give `length` outputs also where the loop is eager.

    Returns:
        (carry, outputs): outputs (steps, ...) of the steps that ran, or of all `length` where `whole` or traced.
    """
    length = None if length is None else int(length)
    rows = [] if slices is None or not length else [ops.unstack(leaf, length, axis=0) for leaf in tree.flatten(slices)]
    steps, time = [], 0
    while (length is None or time < length) and bool(going(carry)):
        now = None if slices is None else tree.pack_sequence_as(slices, [row[time] for row in rows])
        carry, output = step(ops.convert_to_tensor(time, "int32"), now, carry)
        steps.append(tree.flatten(output))
        time += 1
    blanks = tree.flatten(blank)
    missing = length - time if whole and length is not None else 0
    if steps or missing:
        columns = zip(*steps, strict=True) if steps else [()] * len(blanks)
        stacked = [ops.stack([*column, *[zero] * missing]) for column, zero in zip(columns, blanks, strict=True)]
    else:
        stacked = [ops.zeros((0, *zero.shape), zero.dtype) for zero in blanks]
    return carry, tree.pack_sequence_as(blank, stacked)


class StepMixin(StepContract):
    __doc__ = StepContract.__doc__

    def train_step(self, data: Any) -> NoReturn:
        """Raises UsageError: the backend computes no gradients."""
        _no_gradients()

    def fit(self, *args: Any, **kwargs: Any) -> NoReturn:
        """Raises UsageError: the backend computes no gradients."""
        _no_gradients()

    def train_on_batch(self, *args: Any, **kwargs: Any) -> NoReturn:
        """Raises UsageError: the backend computes no gradients."""
        _no_gradients()
