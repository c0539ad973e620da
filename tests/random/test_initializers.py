"""Initialisers: their numbers are those of `draw`, in any Keras layer, on every backend."""

import keras
import numpy as np
import pytest
from keras import ops

from k3seq.errors import UsageError
from k3seq.random import Stream, initialize, initializers
from k3seq.random.weights import draw

# (initialiser, the arguments of Keras' own of the same name)
ALL = [
    (initializers.GlorotUniform(seed=3), {}),
    (initializers.GlorotNormal(seed=3), {}),
    (initializers.HeUniform(seed=3), {}),
    (initializers.HeNormal(seed=3), {}),
    (initializers.LecunUniform(seed=3), {}),
    (initializers.LecunNormal(seed=3), {}),
    (initializers.RandomUniform(-2.0, 1.0, seed=3), {"minval": -2.0, "maxval": 1.0}),
    (initializers.RandomNormal(1.0, 0.5, seed=3), {"mean": 1.0, "stddev": 0.5}),
    (initializers.TruncatedNormal(1.0, 0.5, seed=3), {"mean": 1.0, "stddev": 0.5}),
    (initializers.Orthogonal(2.0, seed=3), {"gain": 2.0}),
    (
        initializers.VarianceScaling(3.0, "fan_out", "uniform", seed=3),
        {"scale": 3.0, "mode": "fan_out", "distribution": "uniform"},
    ),
]
every = pytest.mark.parametrize("initializer, arguments", ALL, ids=[type(i).__name__ for i, _ in ALL])


@every
def test_a_layer_starts_with_the_numbers_of_the_stream(initializer, arguments):
    layer = keras.layers.Dense(3, kernel_initializer=initializer)
    layer.build((None, 5))
    kind = type(initializer).__name__
    config = getattr(keras.initializers, kind)(**arguments).get_config()
    expected = np.asarray(draw(kind, config, (5, 3), Stream(3, kind)), np.float32)
    np.testing.assert_array_equal(ops.convert_to_numpy(layer.kernel), expected)
    assert not np.array_equal(expected, np.asarray(draw(kind, config, (5, 3), Stream(4, kind)), np.float32))


@every
def test_an_initialiser_survives_serialisation_inside_a_layer(initializer, arguments):
    layer = keras.layers.Dense(3, kernel_initializer=initializer)
    again = keras.saving.deserialize_keras_object(keras.saving.serialize_keras_object(layer)).kernel_initializer
    assert type(again) is type(initializer)
    assert again.get_config() == {**arguments, "seed": 3}
    np.testing.assert_array_equal(ops.convert_to_numpy(again((4, 2))), ops.convert_to_numpy(initializer((4, 2))))


def test_a_model_with_them_can_still_be_initialised_by_path():
    layer = keras.layers.Dense(3, kernel_initializer=initializers.HeNormal(seed=3), name="dense")
    layer.build((None, 5))
    stock = keras.layers.Dense(3, kernel_initializer="he_normal", name="dense")
    stock.build((None, 5))
    found, expected = (ops.convert_to_numpy(initialize(one, 0).kernel) for one in (layer, stock))
    np.testing.assert_array_equal(found, expected)


def test_other_float_types_are_the_rounded_float32_numbers():
    initializer = initializers.RandomNormal(seed=3)
    exact, half = initializer((4, 2)), initializer((4, 2), dtype="bfloat16")
    assert keras.backend.standardize_dtype(half.dtype) == "bfloat16"
    np.testing.assert_array_equal(
        ops.convert_to_numpy(ops.cast(half, "float32")), ops.convert_to_numpy(ops.cast(ops.cast(exact, "bfloat16"), "float32"))
    )
    assert not np.array_equal(ops.convert_to_numpy(ops.cast(half, "float32")), ops.convert_to_numpy(exact))


@pytest.mark.once
@pytest.mark.parametrize(
    "make, message",
    [
        (lambda: initializers.VarianceScaling(0.0, seed=0), "Expected scale to be a number above 0. Received: scale=0.0"),
        (lambda: initializers.VarianceScaling(distribution="normal", seed=0), "Received: distribution='normal'"),
        (lambda: initializers.Orthogonal(seed=0)((3,)), r"Expected a shape of at least two axes. Received: shape=\(3,\)"),
        (lambda: initializers.RandomNormal(seed=0)((3,), "int32"), "Expected a float dtype. Received: dtype=int32"),
    ],
)
def test_bad_arguments_are_refused(make, message):
    with pytest.raises(UsageError, match=message):
        make()


@pytest.mark.once
def test_the_seed_is_required():
    with pytest.raises(TypeError, match="seed"):
        initializers.GlorotUniform()
