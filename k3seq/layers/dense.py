"""Linear maps of the last axis: with a bias, and without."""

from typing import TYPE_CHECKING, Any

import keras
from keras import initializers, ops

from k3seq import arguments, backend
from k3seq.layers.nested import Nested
from k3seq.typing import Initializer, Shape, Tensor


@keras.saving.register_keras_serializable(package="k3seq")
class Dense(Nested, keras.layers.Dense):
    """`keras.layers.Dense` with the same arguments, weights and numbers, computed as one product of all rows.

    Call it with float inputs (..., d); it returns (..., units). A quantised layer uses Keras' own `call`.
    """

    if TYPE_CHECKING:

        def __init__(self, units: int, *args: Any, **kwargs: Any): ...

    def call(self, inputs: Tensor, training: bool | None = None) -> Tensor:
        if self.quantization_mode is not None:
            return super().call(inputs, training=training)
        bias = None if self.bias is None else ops.convert_to_tensor(self.bias)
        x = backend.affine(inputs, ops.convert_to_tensor(self.kernel), bias)
        return x if self.activation is None else self.activation(x)


@keras.saving.register_keras_serializable(package="k3seq")
class Projection(keras.layers.Layer):
    """`x @ kernel`: x (..., d) to (..., units). In float64 it is exact on torch too, which `keras.layers.Dense` is not.

    Args:
        units: size of the result, an integer of at least 1.
        kernel_initializer: as in Keras.

    Raises:
        UsageError: `units` is not such an integer.
    """

    def __init__(self, units: int, kernel_initializer: Initializer = "glorot_uniform", **kwargs: Any):
        super().__init__(**kwargs)
        arguments.positive(units=units)
        self.units = units
        self.kernel_initializer = initializers.get(kernel_initializer)

    def build(self, x_shape: Shape) -> None:
        self.kernel = self.add_weight(name="kernel", shape=(x_shape[-1], self.units), initializer=self.kernel_initializer)

    def call(self, x: Tensor) -> Tensor:
        return backend.affine(x, ops.cast(self.kernel, x.dtype))

    def compute_output_shape(self, x_shape: Shape) -> Shape:
        return (*x_shape[:-1], self.units)

    def get_config(self) -> dict[str, Any]:
        return {
            **super().get_config(),
            "units": self.units,
            "kernel_initializer": initializers.serialize(self.kernel_initializer),
        }
