"""Gradient ascent in input space: the input that activates a unit most (Erhan et al. 2009, "Visualizing higher-layer
features")."""

from collections.abc import Sequence
from typing import NamedTuple

import keras
import numpy as np
from keras import ops

from k3seq.backend import value_and_grad
from k3seq.backend.keras_internals import layers_of
from k3seq.inspect.trace import wrapped_calls


class Ascent(NamedTuple):
    """`input`, `shape` float32 (NumPy), and `activations`, the unit's mean activation before each step and after the last."""

    input: np.ndarray
    activations: list


def gradient_ascent(
    model: keras.Model,
    layer: str | keras.layers.Layer,
    unit: int,
    shape: Sequence[int],
    steps: int = 30,
    step_size: float = 0.1,
    seed: int = 0,
) -> Ascent:
    """Changes a noise input so that the activation of one unit of one layer rises.

    Each step adds `step_size` times the gradient of the unit's activation (its mean over all positions), divided by the
    gradient's root mean square, so that the pace does not depend on how strongly the layer answers.

    Args:
        model: a built Keras model that takes one float tensor.
        layer: a layer within it, or its name.
        unit: index on the last axis of that layer's output.
        shape: of the input, without the batch axis.
        steps: int, at least 1. step_size: how far an average element moves in one step.
        seed: of the noise to begin with, uniform within 0.5 +- 0.125, the same on every backend.

    Returns:
        An `Ascent`.

    Raises:
        ValueError: when there is no such layer or unit, the call does not pass through the layer, or steps is below 1.
    """
    if steps < 1:
        raise ValueError(f"Expected steps of at least 1. Received: steps={steps}")
    layer = _layer_of(model, layer)

    def activation(x):
        outputs = []

        def wrap(_, call):
            def kept(*args, **kwargs):
                outputs.append(call(*args, **kwargs))
                return outputs[-1]

            return kept

        with wrapped_calls([layer], wrap):
            model(x, training=False)
        if not outputs:
            raise ValueError(f"Expected a layer that {model.name} calls. Received: layer={getattr(layer, 'name', layer)!r}")
        units = outputs[0].shape[-1]
        if not 0 <= unit < units:
            raise ValueError(f"Expected unit within 0 and {units - 1}. Received: unit={unit}")
        return ops.mean(outputs[0][..., unit])

    climb = value_and_grad(activation)
    noise = np.random.default_rng(seed).uniform(0.375, 0.625, (1, *shape))
    x = ops.convert_to_tensor(noise.astype("float32"))
    activations = []
    for _ in range(steps):
        value, gradient = climb(x)
        activations.append(float(ops.convert_to_numpy(value)))
        x = x + step_size * gradient / (ops.sqrt(ops.mean(ops.square(gradient))) + 1e-12)
    activations.append(float(ops.convert_to_numpy(climb(x)[0])))
    return Ascent(ops.convert_to_numpy(x)[0], activations)


def _layer_of(model, layer):
    found = [each for each in layers_of(model, include_self=False) if each is layer or each.name == layer]
    if not found:
        known = ", ".join(each.name for each in layers_of(model, include_self=False))
        raise ValueError(f"Expected a layer of {model.name}: {known}. Received: layer={getattr(layer, 'name', layer)!r}")
    return found[0]
