"""A linear map without a bias."""

import keras
from keras import initializers, ops


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
        return x @ ops.cast(self.kernel, x.dtype)

    def compute_output_shape(self, x_shape):
        return (*x_shape[:-1], self.units)

    def get_config(self):
        return {
            **super().get_config(),
            "units": self.units,
            "kernel_initializer": initializers.serialize(self.kernel_initializer),
        }
