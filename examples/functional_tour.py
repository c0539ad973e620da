"""A tour of the functional API: one model in three forms, several inputs and outputs, three losses, and gradient ascent.

Run it as `KERAS_BACKEND=jax python examples/functional_tour.py --steps 100`, with any backend.
"""

import argparse
import os

import keras
import numpy as np
from keras import layers

from k3seq.inspect import draw_ascent, draw_images, gradient_ascent, save_figure
from k3seq.models.examples.document import LOSS_WEIGHTS, LOSSES, document_classifier
from k3seq.models.examples.vae import VAE
from k3seq.random import initialize


def sequential():
    """A sequence of layers."""
    return keras.Sequential([keras.Input((4,)), layers.Dense(8, activation="relu"), layers.Dense(3, activation="softmax")])


def functional():
    """The same layers as a graph, which may also branch and join."""
    inputs = keras.Input((4,))
    return keras.Model(inputs, layers.Dense(3, activation="softmax")(layers.Dense(8, activation="relu")(inputs)))


@keras.saving.register_keras_serializable(package="functional_tour")
class Subclassed(keras.Model):
    """The same layers as attributes, created once: layers created in `call` would be new in every step."""

    def __init__(self, **kwargs):
        super().__init__(**kwargs)
        self.hidden = layers.Dense(8, activation="relu")
        self.outputs_dense = layers.Dense(3, activation="softmax")
        self.hidden.build((None, 4))
        self.outputs_dense.build((None, 8))
        self.built = True

    def call(self, x):
        return self.outputs_dense(self.hidden(x))


def tickets(rows, rng):
    """Support tickets: urgent if the title contains word 7, for the department whose word (1 to 4) starts the body."""
    department = rng.integers(0, 4, rows)
    urgent = rng.integers(0, 2, rows)
    x = {name: rng.integers(10, 200, (rows, 20)).astype("int32") for name in ("title", "body")}
    x["title"][urgent == 1, 3] = 7
    x["body"][:, 0] = department + 1
    x["tags"] = rng.integers(0, 2, (rows, 12)).astype("float32")
    return x, {"priority": urgent[:, None].astype("float32"), "department": np.eye(4, dtype="float32")[department]}


def rings(rows, rng):
    """Images (rows, 28, 28, 1) of rings whose radius and brightness vary."""
    distance = np.hypot(*np.mgrid[-13.5:14, -13.5:14])
    radius, light = rng.uniform(4, 11, (rows, 1, 1)), rng.uniform(0.4, 1, (rows, 1, 1))
    return (light * np.exp(-((distance - radius) ** 2) / 4)).astype("float32")[..., None]


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--steps", type=int, default=100, help="training steps of each model")
    parser.add_argument("--out", default=".", help="folder of the pictures")
    arguments = parser.parse_args()
    rng, rows = np.random.default_rng(0), 32 * arguments.steps
    fit = dict(batch_size=32, epochs=1, verbose=0)

    forms = [sequential(), functional(), Subclassed()]
    for form in forms[1:]:
        form.set_weights(forms[0].get_weights())
    x = rng.normal(size=(5, 4)).astype("float32")
    spread = np.ptp([form.predict(x, verbose=0) for form in forms], axis=0).max()
    print(f"three forms: {[form.count_params() for form in forms]} parameters, outputs within {spread:.0e}")

    classifier = document_classifier(vocabulary_size=200, max_steps=20, embed_dim=32, dense_dim=32)
    options = dict(loss=LOSSES, loss_weights=LOSS_WEIGHTS, metrics=dict.fromkeys(LOSSES, "accuracy"))
    classifier.compile(keras.optimizers.Adam(3e-3), **options)
    classifier.fit(*tickets(rows, rng), **fit)
    scores = classifier.evaluate(*tickets(256, rng), verbose=0, return_dict=True)
    print("tickets: " + ", ".join(f"{name} {scores[f'{name}_accuracy']:.2f}" for name in LOSSES) + " right")

    vae = initialize(VAE(), 0)
    vae.compile(keras.optimizers.Adam(2e-3))
    losses = vae.fit(rings(rows, rng), **fit).history
    print("vae: " + ", ".join(f"{name} {losses[name][-1]:.1f}" for name in ("loss", "reconstruction", "kl")))
    codes = np.stack(np.meshgrid(np.linspace(-2, 2, 8), np.linspace(-2, 2, 8)), -1).reshape(-1, 2)
    save_figure(draw_images(vae.generate(codes.astype("float32"))), os.path.join(arguments.out, "vae.png"))

    ascent = gradient_ascent(vae, "encoder_conv_1", 6, (28, 28, 1))
    save_figure(draw_ascent(ascent, "input that maximises unit 6 of encoder_conv_1"), os.path.join(arguments.out, "ascent.png"))
    print(f"ascent: activation from {ascent.activations[0]:.3f} to {ascent.activations[-1]:.3f}")


if __name__ == "__main__":
    main()
