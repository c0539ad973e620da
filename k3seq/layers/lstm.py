"""LSTM over padded rows with explicit lengths, unidirectional and bidirectional.

Hochreiter & Schmidhuber 1997, with the forget gate of Gers et al. 2000; gates in Keras' order i, f, c, o.
"""

from typing import Any

import keras
from keras import initializers, ops

from k3seq.layers.recurrent import Bidirectional, Recurrent, recurrence
from k3seq.typing import Shape, Tensor


def lstm_step(projected: Tensor, h: Tensor, c: Tensor, recurrent_kernel: Tensor) -> tuple[Tensor, Tensor]:
    """One step of the recurrence.

    Args:
        projected: (b, 4d), input times kernel plus bias. h, c: (b, d). recurrent_kernel: (d, 4d).

    Returns:
        (h, c): (b, d) each.
    """
    i, f, g, o = ops.split(projected + ops.matmul(h, recurrent_kernel), 4, axis=-1)
    c = ops.sigmoid(f) * c + ops.sigmoid(i) * ops.tanh(g)
    return ops.sigmoid(o) * ops.tanh(c), c


def lstm(
    x: Tensor, lengths: Tensor, h: Tensor, c: Tensor, kernel: Tensor, recurrent_kernel: Tensor, bias: Tensor
) -> tuple[Tensor, ...]:
    """All steps, the input projection of all steps as one product. At a padded step the states are kept and the output is 0.

    Args:
        x: (b, s, inputs) float. lengths: (b,) int, or None when no row is padded.
        h, c: (b, d) initial states. kernel: (inputs, 4d). recurrent_kernel: (d, 4d). bias: (4d,).

    Returns:
        (outputs, h, c): (b, s, d), and the states after each row's last real step (an empty row: the initial states).
    """
    projected = ops.matmul(x, kernel) + bias
    return recurrence(lambda now, h, c: lstm_step(now, h, c, recurrent_kernel), projected, lengths, (h, c))


@keras.saving.register_keras_serializable(package="k3seq")
class OpenForgetGate(initializers.Initializer):
    """Zeros, and ones for the forget gate (Jozefowicz et al. 2015): a bias of shape (4d,) in the order i, f, g, o."""

    def __call__(self, shape: tuple[int, ...], dtype: Any = None) -> Tensor:
        return ops.repeat(ops.convert_to_tensor([0.0, 1.0, 0.0, 0.0], dtype), shape[0] // 4)


@keras.saving.register_keras_serializable(package="k3seq")
class LSTM(Recurrent):
    """An LSTM with explicit lengths. Its state is (h, c), each (b, units). Arguments, call and results: see `Recurrent`."""

    kernel_name = "lstm_sequence"
    state_like = (0, 0)

    def __init__(self, units: int, *, fused: bool = True, padding: str = "right", **kwargs: Any):
        super().__init__(units, fused=fused, padding=padding, **kwargs)
        self.kernel_initializer = initializers.GlorotUniform()
        self.recurrent_initializer = initializers.Orthogonal()
        self.bias_initializer = OpenForgetGate()

    def build(self, x_shape: Shape) -> None:
        d = self.units
        self.kernel = self.add_weight(name="kernel", shape=(x_shape[-1], 4 * d), initializer=self.kernel_initializer)
        self.recurrent_kernel = self.add_weight(
            name="recurrent_kernel", shape=(d, 4 * d), initializer=self.recurrent_initializer
        )
        self.bias = self.add_weight(name="bias", shape=(4 * d,), initializer=self.bias_initializer)

    def definition(self, x: Tensor, lengths: Tensor, *states_and_weights: Tensor) -> tuple[Tensor, ...]:
        return lstm(x, lengths, *states_and_weights)

    def cell(self, projected: Tensor, h: Tensor, c: Tensor, recurrent_kernel: Tensor, bias: Tensor) -> tuple[Tensor, ...]:
        return lstm_step(projected, h, c, recurrent_kernel)


@keras.saving.register_keras_serializable(package="k3seq")
class BidirectionalLSTM(Bidirectional):
    """Two LSTMs over a row, one from each end. The state is (h, c), each (b, 2 units). See `Bidirectional`."""

    layer = LSTM
