import keras
import numpy as np
import pytest
from keras import ops

from k3seq.inspect.ascent import gradient_ascent


def linear(weights):
    """One dense layer, the units of which like the columns of `weights`."""
    model = keras.Sequential([keras.Input((len(weights),)), keras.layers.Dense(weights.shape[1], name="dense")])
    model.get_layer("dense").set_weights([weights, np.zeros(weights.shape[1], "float32")])
    return model


WEIGHTS = np.array([[3.0, -1.0], [4.0, 2.0]], "float32")


@pytest.mark.parametrize("unit", [0, 1])
def test_a_linear_unit_is_climbed_along_its_own_weights(unit):
    ascent = gradient_ascent(linear(WEIGHTS), "dense", unit, (2,), steps=5, step_size=0.2)
    start = np.random.default_rng(0).uniform(0.375, 0.625, 2)
    direction = WEIGHTS[:, unit] / np.sqrt((WEIGHTS[:, unit] ** 2).mean())
    np.testing.assert_allclose(ascent.input, start + 5 * 0.2 * direction, atol=1e-5)
    expected = [(start + k * 0.2 * direction) @ WEIGHTS[:, unit] for k in range(6)]
    np.testing.assert_allclose(ascent.activations, expected, rtol=1e-5)
    assert np.abs(ascent.input - (start + direction * [1, -1])).max() > 0.1


def test_a_unit_inside_a_nested_model_rises():
    image = keras.Input((8, 8, 1))
    inner = keras.Model(image, keras.layers.Conv2D(3, 3, name="conv")(image), name="inner")
    x = keras.Input((8, 8, 1))
    model = keras.Model(x, keras.layers.Flatten()(inner(x)))
    ascent = gradient_ascent(model, "conv", 1, (8, 8, 1), steps=4)
    assert ascent.input.shape == (8, 8, 1)
    assert all(after > before for before, after in zip(ascent.activations, ascent.activations[1:], strict=False))
    by_layer = gradient_ascent(model, inner.get_layer("conv"), 1, (8, 8, 1), steps=4)
    np.testing.assert_array_equal(by_layer.input, ascent.input)
    other = gradient_ascent(model, "conv", 1, (8, 8, 1), steps=4, seed=1)
    assert np.abs(other.input - ascent.input).max() > 1e-3


def test_the_model_is_left_as_it_was():
    model = linear(WEIGHTS)
    x = np.ones((1, 2), "float32")
    before = ops.convert_to_numpy(model(x))
    gradient_ascent(model, "dense", 0, (2,), steps=2)
    np.testing.assert_array_equal(ops.convert_to_numpy(model(x)), before)
    assert not any("call" in vars(layer) for layer in model._flatten_layers())


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("nowhere", 0, (2,)), "layer='nowhere'"),
        (("dense", 2, (2,)), "unit=2"),
        (("dense", 0, (2,), 0), "steps=0"),
    ],
)
def test_what_is_not_there_is_refused(arguments, message):
    with pytest.raises(ValueError, match=message):
        gradient_ascent(linear(WEIGHTS), *arguments)
