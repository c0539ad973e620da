"""GRU over padded rows with explicit lengths, unidirectional and bidirectional.

Cho et al. 2014 (arXiv 1406.1078, its first version): the reset gate multiplies the recurrent product, as in cuDNN, torch and
Keras with `reset_after=True`; gates in Keras' order z, r, h.
"""

from typing import Any

import keras
from keras import initializers, ops

from k3seq.layers.recurrent import Bidirectional, Recurrent, recurrence
from k3seq.typing import Shape, Tensor


def gru_step(projected: Tensor, h: Tensor, recurrent_kernel: Tensor, recurrent_bias: Tensor) -> Tensor:
    """One step of the recurrence.

    Args:
        projected: (b, 3d), input times kernel plus its bias. h: (b, d). recurrent_kernel: (d, 3d). recurrent_bias: (3d,).

    Returns:
        h: (b, d).
    """
    xz, xr, xh = ops.split(projected, 3, axis=-1)
    hz, hr, hh = ops.split(ops.matmul(h, recurrent_kernel) + recurrent_bias, 3, axis=-1)
    z = ops.sigmoid(xz + hz)
    return z * h + (1 - z) * ops.tanh(xh + ops.sigmoid(xr + hr) * hh)


def gru(x: Tensor, lengths: Tensor, h: Tensor, kernel: Tensor, recurrent_kernel: Tensor, bias: Tensor) -> tuple[Tensor, ...]:
    """All steps, the input projection of all steps as one product. At a padded step the state is kept and the output is 0.

    Args:
        x: (b, s, inputs) float. lengths: (b,) int, or None when no row is padded.
        h: (b, d) initial state. kernel: (inputs, 3d). recurrent_kernel: (d, 3d). bias: (2, 3d), of the input and of the state.

    Returns:
        (outputs, h): (b, s, d), and the state after each row's last real step (an empty row: the initial state).
    """
    projected = ops.matmul(x, kernel) + bias[0]
    return recurrence(lambda now, h: (gru_step(now, h, recurrent_kernel, bias[1]),), projected, lengths, (h,))


@keras.saving.register_keras_serializable(package="k3seq")
class GRU(Recurrent):
    """A GRU with explicit lengths. Its state is h, (b, units). Arguments, call and results: see `Recurrent`."""

    kernel_name = "gru_sequence"
    state_like = 0

    def __init__(self, units: int, *, fused: bool = True, padding: str = "right", **kwargs: Any):
        super().__init__(units, fused=fused, padding=padding, **kwargs)
        self.kernel_initializer = initializers.GlorotUniform()
        self.recurrent_initializer = initializers.Orthogonal()
        self.bias_initializer = initializers.Zeros()

    def build(self, x_shape: Shape) -> None:
        d = self.units
        self.kernel = self.add_weight(name="kernel", shape=(x_shape[-1], 3 * d), initializer=self.kernel_initializer)
        self.recurrent_kernel = self.add_weight(
            name="recurrent_kernel", shape=(d, 3 * d), initializer=self.recurrent_initializer
        )
        self.bias = self.add_weight(name="bias", shape=(2, 3 * d), initializer=self.bias_initializer)

    def definition(self, x: Tensor, lengths: Tensor, *states_and_weights: Tensor) -> tuple[Tensor, ...]:
        return gru(x, lengths, *states_and_weights)

    def project(self, x: Tensor, kernel: Tensor, bias: Tensor) -> Tensor:
        return ops.matmul(x, kernel) + bias[0]

    def cell(self, projected: Tensor, h: Tensor, recurrent_kernel: Tensor, bias: Tensor) -> tuple[Tensor, ...]:
        return (gru_step(projected, h, recurrent_kernel, bias[1]),)


@keras.saving.register_keras_serializable(package="k3seq")
class BidirectionalGRU(Bidirectional):
    """Two GRUs over a row, one from each end. The state is (b, 2 units). See `Bidirectional`."""

    layer = GRU
