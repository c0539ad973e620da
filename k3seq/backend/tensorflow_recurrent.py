"""Dense and recurrent layers on TensorFlow: a `tf.while_loop` with its own backward pass, also over an unknown number of steps.

TensorFlow's derivative of a loop puts every intermediate value of a step on a stack and adds up the gradients of the weights
step by step. Here a step keeps only its states and gates, and the gradients of the weights and of the input are products over
all steps after the loop. `jax_recurrent` says where the input is projected, and why.
"""

from typing import Any

import tensorflow as tf

from k3seq.typing import Tensor


def affine(x: Tensor, kernel: Tensor, bias: Tensor | None = None) -> Tensor:
    """`x @ kernel + bias` as one product of all rows."""
    rows = tf.matmul(tf.reshape(x, (-1, x.shape[-1])), kernel)
    rows = rows if bias is None else tf.nn.bias_add(rows, bias)
    out = tf.reshape(rows, tf.concat([tf.shape(x)[:-1], [kernel.shape[-1]]], 0))
    out.set_shape((*x.shape[:-1], kernel.shape[-1]))
    return out


def lstm_sequence(
    x: Tensor, lengths: Tensor | None, h: Tensor, c: Tensor, kernel: Tensor, recurrent_kernel: Tensor, bias: Tensor
) -> tuple[Tensor, Tensor, Tensor]:
    """All steps of an LSTM (see `reference`), whose number may be known only when the graph runs: so it is once `fit`
    has seen two lengths, where `keras.ops.scan` fails."""
    return _sequence(_LSTM, x, lengths, (h, c), kernel, recurrent_kernel, (bias, tf.zeros_like(bias)))


def gru_sequence(
    x: Tensor, lengths: Tensor | None, h: Tensor, kernel: Tensor, recurrent_kernel: Tensor, bias: Tensor
) -> tuple[Tensor, Tensor]:
    """All steps of a GRU (see `reference`)."""
    return _sequence(_GRU, x, lengths, (h,), kernel, recurrent_kernel, (bias[0], bias[1]))


def _lstm_cell(gates, states):
    i, f, g, o = tf.split(gates[0], 4, axis=-1)
    c = tf.sigmoid(f) * states[1] + tf.sigmoid(i) * tf.tanh(g)
    return tf.sigmoid(o) * tf.tanh(c), c


def _gru_cell(gates, states):
    (xz, xr, xh), (hz, hr, hh) = (tf.split(part, 3, axis=-1) for part in gates)
    z = tf.sigmoid(xz + hz)
    return (z * states[0] + (1 - z) * tf.tanh(xh + tf.sigmoid(xr + hr) * hh),)


# A cell, and the function from the projections of input and state to its gates.
_LSTM = (_lstm_cell, lambda x, h: (x + h,))
_GRU = (_gru_cell, lambda x, h: (x, h))


def _sequence(kind, x, lengths, states, kernel, recurrent_kernel, biases) -> Any:
    _, join = kind
    steps, size = tf.shape(x)[1], states[0].shape[-1]
    ends = None if lengths is None else tf.cast(lengths, tf.int32)[:, None]

    def real(t):
        return None if ends is None else t < ends

    @tf.custom_gradient
    def loop(x, kernel, recurrent_kernel, bias, recurrent_bias, *states):
        x, gate_shape = tf.transpose(x, [1, 0, 2]), (x.shape[0], kernel.shape[1])
        hoisted = bool(tf.config.list_physical_devices("GPU"))
        inputs = _unstacked(affine(x, kernel, bias) if hoisted else x)

        def advance(t, states, kept):
            projected = inputs.read(t) if hoisted else tf.matmul(inputs.read(t), kernel) + bias
            gates = join(projected, tf.matmul(states[0], recurrent_kernel) + recurrent_bias)
            after, output = _step(kind, real(t), gates, states)
            return t + 1, after, _written(kept, t, (output, *states, *gates))

        shapes = [states[0].shape, *(state.shape for state in states), *(gate_shape,) * len(join(0, 0))]
        last, (outputs, *kept) = _loop(advance, states, shapes, steps)
        before, gates = kept[: len(states)], kept[len(states) :]

        def gradients(of_outputs, *of_states):
            given = [_unstacked(value) for value in (tf.transpose(of_outputs, [1, 0, 2]), *kept)]
            recurrent = tf.transpose(recurrent_kernel)

            def retreat(back, of_states, written):
                t = steps - 1 - back
                of_output, *values = (array.read(t) for array in given)
                states, gates = values[: len(before)], values[len(before) :]
                with tf.GradientTape(watch_accessed_variables=False) as tape:
                    tape.watch((states, gates))
                    result = _step(kind, real(t), gates, states)
                given_back: Any = (tuple(of_states), of_output)
                zero = tf.UnconnectedGradients.ZERO  # a step depends on an LSTM's h only through the gates
                pulled: Any = tape.gradient(result, (states, gates), given_back, unconnected_gradients=zero)
                of_states, of_gates = pulled
                of_h = of_states[0] + tf.matmul(of_gates[-1], recurrent)
                return back + 1, (of_h, *of_states[1:]), _written(written, t, of_gates)

            of_states, of_gates = _loop(retreat, of_states, [gate_shape] * len(gates), steps)
            of_x, of_h = of_gates[0], of_gates[-1]
            of_input = tf.transpose(affine(of_x, tf.transpose(kernel)), [1, 0, 2])
            biases = (tf.reduce_sum(of_x, [0, 1]), tf.reduce_sum(of_h, [0, 1]))
            return of_input, _product(x, of_x), _product(before[0], of_h), *biases, *of_states

        outputs = tf.transpose(outputs, [1, 0, 2])
        return (outputs, *last), gradients

    found: Any = loop(x, kernel, recurrent_kernel, *biases, *states)
    outputs, *states = found
    outputs.set_shape((*x.shape[:2], size))
    return outputs, *states


def _step(kind, real, gates, states):
    """(states, output) after a step; where it is not real the states stay and the output is 0."""
    after = kind[0](gates, states)
    if real is None:
        return after, after[0]
    output = tf.where(real, after[0], 0.0)
    return tuple(tf.where(real, new, old) for new, old in zip(after, states, strict=True)), output


def _loop(body, states, shapes, steps):
    """(states, outputs of all steps) of `body(t, states, arrays)` for t in 0..steps; an output has one of `shapes`."""
    arrays = tuple(tf.TensorArray(states[0].dtype, steps, element_shape=shape) for shape in shapes)
    invariant: Any = (tf.TensorShape([]), tuple(state.shape for state in states), (tf.TensorShape(None),) * len(arrays))  # pyright: ignore[reportArgumentType] - unknown rank
    begin = (tf.constant(0), tuple(states), arrays)
    _, states, arrays = tf.while_loop(lambda t, *_: t < steps, body, begin, invariant, maximum_iterations=steps)
    return states, [array.stack() for array in arrays]


def _unstacked(value):
    return tf.TensorArray(value.dtype, tf.shape(value)[0], element_shape=value.shape[1:]).unstack(value)


def _written(arrays, t, values):
    return tuple(array.write(t, value) for array, value in zip(arrays, values, strict=True))


def _product(x, y):
    """The sum over all rows of the outer products of x (s, b, i) and y (s, b, j)."""
    return tf.matmul(tf.reshape(x, (-1, x.shape[-1])), tf.reshape(y, (-1, y.shape[-1])), transpose_a=True)
