"""LSTM over padded rows with explicit lengths, one- and two-directional.

Hochreiter & Schmidhuber 1997, with the forget gate of Gers et al. 2000; gates in Keras' order i, f, c, o.
"""

import keras
from keras import initializers, ops

from k3seq import backend
from k3seq.layers.masks import length_mask


def lstm_step(projected, h, c, recurrent_kernel):
    """One step of the recurrence.

    Args:
        projected: (b, 4d), input times kernel plus bias. h, c: (b, d). recurrent_kernel: (d, 4d).

    Returns:
        (h, c): (b, d) each.
    """
    i, f, g, o = ops.split(projected + ops.matmul(h, recurrent_kernel), 4, axis=-1)
    c = ops.sigmoid(f) * c + ops.sigmoid(i) * ops.tanh(g)
    return ops.sigmoid(o) * ops.tanh(c), c


def lstm(x, lengths, h, c, kernel, recurrent_kernel, bias):
    """All steps, the input projection of all steps as one product. At a padded step the states are kept and the output is 0.

    Args:
        x: (b, s, inputs) float. lengths: (b,) int, or None when no row is padded.
        h, c: (b, d) initial states. kernel: (inputs, 4d). recurrent_kernel: (d, 4d). bias: (4d,).

    Returns:
        (outputs, h, c): (b, s, d), and the states after each row's last real step (an empty row: the initial states).
    """
    projected = ops.transpose(ops.matmul(x, kernel) + bias, (1, 0, 2))
    if lengths is None:

        def step(states, now):
            states = lstm_step(now, *states, recurrent_kernel)
            return states, states

        # Each step gives both states, though only h is used: `ops.scan` on TensorFlow wants outputs like the carry.
        (h, c), (outputs, _) = ops.scan(step, (h, c), projected)
        return ops.transpose(outputs, (1, 0, 2)), h, c

    mask = ops.transpose(length_mask(lengths, ops.shape(x)[1]))[:, :, None]

    def masked_step(states, now):
        projected_now, keep = now
        new_h, new_c = lstm_step(projected_now, *states, recurrent_kernel)
        states = ops.where(keep, new_h, states[0]), ops.where(keep, new_c, states[1])
        return states, states

    (h, c), (outputs, _) = ops.scan(masked_step, (h, c), (projected, mask))
    return ops.transpose(ops.where(mask, outputs, ops.zeros_like(outputs)), (1, 0, 2)), h, c


@keras.saving.register_keras_serializable(package="k3seq")
class OpenForgetGate(initializers.Initializer):
    """Zeros, and ones for the forget gate (Jozefowicz et al. 2015): a bias of shape (4d,) in the order i, f, g, o."""

    def __call__(self, shape, dtype=None):
        return ops.repeat(ops.convert_to_tensor([0.0, 1.0, 0.0, 0.0], dtype), shape[0] // 4)


@keras.saving.register_keras_serializable(package="k3seq")
class LSTM(keras.layers.Layer):
    """An LSTM layer that always gives its outputs and its last states.

    Call it with x (b, s, inputs); `lengths` (b,) int32, the real steps of right-padded rows (None: all); `initial_state`
    (h, c), each (b, d) (None: zeros). Returns (outputs (b, s, d), (h, c)); an output at padding is 0 and the states are those
    after the row's last real step, on every backend.

    Args:
        units: d, int >= 1.
        fused: use the backend's own kernel (`backend.lstm_sequence`) where there is one; False: the `keras.ops` definition.

    Raises:
        ValueError: when `units` is not positive.
    """

    def __init__(self, units, *, fused=True, **kwargs):
        super().__init__(**kwargs)
        if units < 1:
            raise ValueError(f"Expected units of at least 1. Received: units={units}")
        self.units, self.fused = units, fused
        self.kernel_initializer = initializers.GlorotUniform()
        self.recurrent_initializer = initializers.Orthogonal()
        self.bias_initializer = OpenForgetGate()

    def build(self, x_shape):
        d = self.units
        self.kernel = self.add_weight(name="kernel", shape=(x_shape[-1], 4 * d), initializer=self.kernel_initializer)
        self.recurrent_kernel = self.add_weight(
            name="recurrent_kernel", shape=(d, 4 * d), initializer=self.recurrent_initializer
        )
        self.bias = self.add_weight(name="bias", shape=(4 * d,), initializer=self.bias_initializer)

    def explain(self):
        """The path that a call takes, as a line of text."""
        if not self.fused:
            return "keras.ops scan: fused=False was asked for"
        kernel = backend.describe()["kernels"]["lstm_sequence"]
        return kernel if backend.lstm_sequence else f"keras.ops scan: this backend's fused kernel is {kernel}"

    def start(self, batch):
        """Zero states (h, c), each (batch, d)."""
        zeros = ops.zeros((batch, self.units), self.compute_dtype)
        return zeros, zeros

    def call(self, x, lengths=None, initial_state=None):
        h, c = self.start(ops.shape(x)[0]) if initial_state is None else initial_state
        sequence = backend.lstm_sequence if self.fused and backend.lstm_sequence else lstm
        weights = [ops.cast(w, self.compute_dtype) for w in (self.kernel, self.recurrent_kernel, self.bias)]
        outputs, h, c = sequence(x, lengths, ops.cast(h, self.compute_dtype), ops.cast(c, self.compute_dtype), *weights)
        return outputs, (h, c)

    def step(self, x, states):
        """One step: x (b, inputs), states (h, c) -> (output (b, d), (h, c))."""
        weights = [ops.cast(w, self.compute_dtype) for w in (self.kernel, self.recurrent_kernel, self.bias)]
        h, c = lstm_step(ops.matmul(ops.cast(x, self.compute_dtype), weights[0]) + weights[2], *states, weights[1])
        return h, (h, c)

    def compute_output_spec(self, x, lengths=None, initial_state=None):
        state = keras.KerasTensor((x.shape[0], self.units), self.compute_dtype)
        outputs = keras.KerasTensor((x.shape[0], x.shape[1], self.units), self.compute_dtype)
        return outputs, (state, keras.KerasTensor(state.shape, state.dtype))

    def get_config(self):
        return {**super().get_config(), "units": self.units, "fused": self.fused}


def reverse_rows(x, lengths=None):
    """Each row's real steps in reverse order, padding left where it is.

    Args:
        x: (b, s, ...). lengths: (b,) int, or None: the whole row.
    """
    if lengths is None:
        return ops.flip(x, axis=1)
    steps = ops.arange(ops.shape(x)[1], dtype="int32")[None, :]
    ends = ops.cast(lengths, "int32")[:, None]
    index = ops.where(steps < ends, ends - 1 - steps, steps)
    for _ in range(len(x.shape) - 2):
        index = ops.expand_dims(index, -1)
    return ops.take_along_axis(x, index, axis=1)


@keras.saving.register_keras_serializable(package="k3seq")
class BidirectionalLSTM(keras.layers.Layer):
    """Two LSTMs over a row, one from each end (Schuster & Paliwal 1997), outputs side by side.

    Call it with x (b, s, inputs) and `lengths` (b,) int32 or None. Returns (outputs (b, s, 2 units), (h, c)), the last states
    of both directions side by side, (b, 2 units) each.

    Args:
        units: int >= 1, of each direction. fused: as in `LSTM`.
    """

    def __init__(self, units, *, fused=True, **kwargs):
        super().__init__(**kwargs)
        self.units, self.fused = units, fused
        self.forward_lstm = LSTM(units, fused=fused, name="forward", dtype=self.dtype_policy)
        self.backward_lstm = LSTM(units, fused=fused, name="backward", dtype=self.dtype_policy)

    def build(self, x_shape):
        self.forward_lstm.build(x_shape)
        self.backward_lstm.build(x_shape)

    def call(self, x, lengths=None):
        ahead, (h, c) = self.forward_lstm(x, lengths)
        behind, (reverse_h, reverse_c) = self.backward_lstm(reverse_rows(x, lengths), lengths)
        outputs = ops.concatenate([ahead, reverse_rows(behind, lengths)], axis=-1)
        return outputs, (ops.concatenate([h, reverse_h], axis=-1), ops.concatenate([c, reverse_c], axis=-1))

    def get_config(self):
        return {**super().get_config(), "units": self.units, "fused": self.fused}
