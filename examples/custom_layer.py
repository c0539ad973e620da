"""A custom layer and a custom model by subclassing: trained with `fit`, summarised, saved and loaded.

Run it as `KERAS_BACKEND=jax python examples/custom_layer.py --steps 300`. The same code runs on every backend. The initial
weights come from `k3seq.random`, so it prints the same numbers on each.
"""

import argparse
import os
import tempfile

import keras
import numpy as np
from keras import ops

from k3seq.random import initialize

FEATURES = 10


@keras.saving.register_keras_serializable(package="custom_layer")
class Affine(keras.layers.Layer):
    """x (..., features) -> x times kernel plus bias, (..., units)."""

    def __init__(self, units, **kwargs):
        super().__init__(**kwargs)
        self.units = units
        self.kernel_initializer, self.bias_initializer = keras.initializers.GlorotUniform(), keras.initializers.Zeros()

    def build(self, x_shape):
        # Not in the constructor, because the number of features is not known there.
        self.kernel = self.add_weight((x_shape[-1], self.units), self.kernel_initializer, name="kernel")
        self.bias = self.add_weight((self.units,), self.bias_initializer, name="bias")

    def call(self, x):
        return ops.matmul(x, self.kernel) + self.bias

    def get_config(self):
        # The arguments of the constructor, which loading calls before it sets the weights.
        return {**super().get_config(), "units": self.units}


@keras.saving.register_keras_serializable(package="custom_layer")
class Classifier(keras.Model):
    """x (rows, features) -> the probability of each class, (rows, classes), by two `Affine` layers."""

    def __init__(self, hidden, classes, **kwargs):
        super().__init__(**kwargs)
        self.sizes = {"hidden": hidden, "classes": classes}
        self.inner = Affine(hidden, name="inner")
        self.outer = Affine(classes, name="outer")

    def build(self, x_shape):
        self.inner.build(x_shape)
        self.outer.build((x_shape[0], self.inner.units))

    def call(self, x):
        return ops.softmax(self.outer(ops.relu(self.inner(x))))

    def get_config(self):
        return {**super().get_config(), **self.sizes}


def signs(rows, rng):
    """Rows of numbers, and whether the first two have the same sign, which one linear layer cannot learn."""
    x = rng.normal(size=(rows, FEATURES)).astype("float32")
    return x, (x[:, 0] * x[:, 1] > 0).astype("int32")


def main(arguments=None):
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--steps", type=int, default=300, help="training steps, of 32 rows")
    parser.add_argument("--out", help="folder for the saved model; a temporary one otherwise")
    options = parser.parse_args(arguments)
    rng = np.random.default_rng(0)

    model = Classifier(hidden=32, classes=2)
    model.build((None, FEATURES))
    initialize(model, seed=0)
    model.compile(keras.optimizers.Adam(1e-2), "sparse_categorical_crossentropy", metrics=["accuracy"])
    model.summary()
    fresh = signs(1000, rng)
    before = model.evaluate(*fresh, verbose=0, return_dict=True)
    model.fit(*signs(32 * options.steps, rng), batch_size=32, shuffle=False, verbose=0)
    after = model.evaluate(*fresh, verbose=0, return_dict=True)
    for when, scores in (("before", before), ("after", after)):
        print(f"{when} training: loss {scores['loss']:.4f}, {scores['accuracy']:.1%} of 1000 new rows correct")

    with tempfile.TemporaryDirectory() as scratch:
        path = os.path.join(options.out or scratch, "custom_layer.keras")
        model.save(path)
        loaded = keras.saving.load_model(path)
    outputs = [each.predict(fresh[0], verbose=0) for each in (model, loaded)]
    difference = float(np.abs(outputs[0] - outputs[1]).max())
    print(f"saved and loaded: outputs differ by {difference}")
    return {"parameters": model.count_params(), "before": before, "after": after, "difference": difference, "loaded": loaded}


if __name__ == "__main__":
    main()
