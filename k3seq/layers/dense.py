"""Linear maps of the last axis: with a bias, and without."""

import keras
from keras import initializers, ops

from k3seq import backend
from k3seq.layers.nested import Nested


@keras.saving.register_keras_serializable(package="k3seq")
class Dense(Nested, keras.layers.Dense):
    """`keras.layers.Dense`, the same weights and numbers: float x (..., depth) to (..., units), one product of all rows.

    Quantised it is Keras' own call.
    """

    def call(self, inputs, training=None):
        if self.quantization_mode is not None:
            return super().call(inputs, training=training)
        bias = None if self.bias is None else ops.convert_to_tensor(self.bias)
        x = backend.affine(inputs, ops.convert_to_tensor(self.kernel), bias)
        return x if self.activation is None else self.activation(x)


@keras.saving.register_keras_serializable(package="k3seq")
class Projection(keras.layers.Layer):
    """`x @ kernel`: x (..., depth) to (..., units). In float64 it is exact on torch too, which `keras.layers.Dense` is not.

    Args:
        units: int >= 1. kernel_initializer: as in Keras.
    """

    def __init__(self, units, kernel_initializer="glorot_uniform", **kwargs):
        super().__init__(**kwargs)
        self.units = units
        self.kernel_initializer = initializers.get(kernel_initializer)

    def build(self, x_shape):
        self.kernel = self.add_weight(name="kernel", shape=(x_shape[-1], self.units), initializer=self.kernel_initializer)

    def call(self, x):
        return backend.affine(x, ops.cast(self.kernel, x.dtype))

    def compute_output_shape(self, x_shape):
        return (*x_shape[:-1], self.units)

    def get_config(self):
        return {
            **super().get_config(),
            "units": self.units,
            "kernel_initializer": initializers.serialize(self.kernel_initializer),
        }
