"""TensorFlow: a tape, gradients made dense, and `tf.cond` where a step may be refused. See `reference` for each name."""

import itertools
from collections.abc import Callable, Sequence
from typing import Any

import keras
import numpy as np
import tensorflow as tf
from keras import tree

from k3seq.backend import reference
from k3seq.backend.step import StepContract, counted, unpack
from k3seq.backend.tensorflow_recurrent import affine as affine
from k3seq.backend.tensorflow_recurrent import gru_sequence as gru_sequence
from k3seq.backend.tensorflow_recurrent import lstm_sequence as lstm_sequence
from k3seq.typing import NDArray, Nested, Tensor


def describe() -> dict[str, Any]:
    """Backend, version, keras, devices, jit and kernels."""
    devices = [device.name.removeprefix("/physical_device:") for device in tf.config.list_physical_devices()]
    return {
        "backend": "tensorflow",
        "version": tf.__version__,
        "keras": keras.__version__,
        "devices": devices,
        "jit": any(name.startswith("GPU") for name in devices),
        "kernels": {f"{n}_sequence": "tf.while_loop with its own backward pass" for n in ("lstm", "gru")},
    }


def synchronize(value: Nested) -> Nested:
    """Waits until every tensor in `value` is computed; returns `value`."""
    for leaf in tree.flatten(value):
        if tf.is_tensor(leaf):
            leaf.numpy()
    return value


def value_and_grad(function: Callable[..., Any], aux: bool = False) -> Callable[..., Any]:
    """A tape around the call; the gradients are dense, and zero where `function` does not depend on a tensor."""

    def differentiate(x, *args):
        x = tree.map_structure(tf.convert_to_tensor, x)
        with tf.GradientTape(watch_accessed_variables=False) as tape:
            tape.watch(tree.flatten(x))
            value = function(x, *args)
        gradients = _dense(tape.gradient(value[0] if aux else value, tree.flatten(x)), tree.flatten(x))
        return value, tree.pack_sequence_as(x, gradients)

    return differentiate


def compiled(function: Callable[..., Any], variables: Sequence[Any] = (), jit: bool | None = None) -> Callable[..., Any]:
    """A `tf.function`, compiled with XLA where `jit` is True; None: a plain graph. It is traced once for each structure, shapes
    and dtypes, and always sees the present values of `variables`."""
    counter = [0]
    fast = tf.function(counted(function, counter), jit_compile=bool(jit), autograph=False)

    def call(*args):
        return fast(*tree.map_structure(tf.convert_to_tensor, args))

    call.compilations = lambda: counter[0]  # pyright: ignore[reportFunctionMemberAccess] - as in `reference`
    return call


def dense(gradient: Tensor) -> Tensor:
    """The slices of an embedding's gradient summed over repeated ids; None stays None."""
    return None if gradient is None else tf.convert_to_tensor(gradient)


def known(value: Any) -> NDArray[Any] | None:
    """The value as a NumPy array, or None where it is not known yet: inside a trace, or symbolic."""
    if isinstance(value, keras.KerasTensor):
        return None
    if tf.is_tensor(value):
        return value.numpy() if hasattr(value, "numpy") else tf.get_static_value(value)
    return np.asarray(value)


def unroll(
    step: Callable[[Tensor, Nested, Nested], tuple[Nested, Nested]],
    going: Callable[[Nested], Tensor],
    carry: Nested,
    blank: Nested,
    length: Any = None,
    slices: Nested = None,
    whole: bool = False,
) -> tuple[Nested, Nested]:
    """A `tf.while_loop` in a graph, where `length` may be a scalar tensor; the loop of the reference outside of one."""
    if tf.executing_eagerly():
        return reference.unroll(step, going, carry, blank, length, slices, whole)
    blanks, states = tree.flatten(blank), [tf.convert_to_tensor(leaf) for leaf in tree.flatten(carry)]

    def outputs_of(zero):
        if length is None:
            return tf.TensorArray(zero.dtype, 0, dynamic_size=True, element_shape=zero.shape)
        array = tf.TensorArray(zero.dtype, length, element_shape=zero.shape)
        # An entry that is never written cannot be stacked where the batch size is known only when the graph runs.
        return array.unstack(tf.repeat(zero[None], length, axis=0))

    def more(time, states, outputs):
        continues = going(tree.pack_sequence_as(carry, states))
        return continues if length is None else tf.logical_and(time < length, continues)

    def advance(time, states, outputs):
        now = None if slices is None else tree.map_structure(lambda leaf: tf.gather(leaf, time), slices)
        new, output = step(time, now, tree.pack_sequence_as(carry, states))
        new = tree.flatten(new)
        for after, before in zip(new, states, strict=True):
            after.set_shape(before.shape)
        return time + 1, new, [array.write(time, leaf) for array, leaf in zip(outputs, tree.flatten(output), strict=True)]

    limit = length if isinstance(length, int) else None  # XLA differentiates a loop of known length only
    start = (tf.zeros((), tf.int32), states, [outputs_of(zero) for zero in blanks])
    _, states, outputs = tf.while_loop(more, advance, start, maximum_iterations=limit)
    return tree.pack_sequence_as(carry, states), tree.pack_sequence_as(blank, [array.stack() for array in outputs])


def _dense(gradients, sources):
    """Dense gradients. Adam, RMSprop and Adagrad square `IndexedSlices` before summing the rows of repeated ids; a missing
    gradient is zero, as it is on JAX."""
    return [
        tf.zeros_like(source) if gradient is None else dense(gradient)
        for gradient, source in zip(gradients, sources, strict=True)
    ]


class StepMixin(StepContract):
    __doc__ = StepContract.__doc__

    def train_step(self, data: Any) -> dict[str, Tensor]:
        """The logs of a batch, whose update is applied."""
        batch = unpack(data)
        variables = [variable.value for variable in self.trainable_variables]
        before = [tf.identity(variable.value) for variable in self.non_trainable_variables]
        metrics_before = [tf.identity(variable.value) for variable in self.metrics_variables]
        parts, forwards = [], []
        for micro in self._micro_batches(batch):
            with tf.GradientTape() as tape:
                forward = self._losses_of(micro, training=True)
                scaled = self._scaled(forward[0])
            parts.append((forward[3], _dense(tape.gradient(scaled, variables), variables)))
            forwards.append((micro, forward))
        gradients = self._mean_gradients(parts)
        norm = self._norm_of(gradients)
        finite = tf.math.is_finite(norm) & tf.reduce_all([tf.math.is_finite(forward[0]) for _, forward in forwards])
        keep = finite if self._step_options["refuse_nonfinite"] else tf.constant(True)

        def apply():
            self.optimizer.apply(gradients, self.trainable_variables)
            return tf.constant(True)

        if self._refuses():
            tf.cond(keep, apply, lambda: tf.constant(False))
        else:
            apply()
        _restore(self.non_trainable_variables, before, keep)
        _restore(self.metrics_variables, metrics_before, keep)
        self._record(forwards, keep, norm, finite)
        return self._logs(training=True)


def _restore(variables: list[keras.Variable], before, keep):
    """Gives variables their earlier values where `keep` is False."""
    # A compiled loss makes its means in the first step: they have no earlier value, and start at zero.
    for variable, value in itertools.zip_longest(variables, before):
        variable.assign(tf.where(keep, variable.value, tf.zeros_like(variable.value) if value is None else value))
