"""Initial weights: their distributions, their dependence on path and seed, and refused arguments."""

import math

import keras
import numpy as np
import pytest
from keras import initializers, ops

from k3seq.errors import UsageError
from k3seq.layers.lstm import LSTM
from k3seq.models.lstm import AttentionSeq2Seq
from k3seq.random import Stream, initialize
from k3seq.random.weights import draw

SHAPE = (400, 300)
CUT = 0.87962566103423978  # deviation of a standard normal cut at two deviations


def drawn(initializer, shape=SHAPE, seed=0, name="w"):
    return draw(type(initializer).__name__, initializer.get_config(), shape, Stream(seed, name))


# (initialiser, mean, deviation, largest distance from the mean) by their definitions, for SHAPE: fans 400 and 300.
NORMAL_LIMIT = 6.7  # of `Stream.normal`
SPREADS = [
    (initializers.RandomUniform(-1.0, 3.0), 1.0, 4 / math.sqrt(12), 2.0),
    (initializers.RandomNormal(2.0, 0.5), 2.0, 0.5, 0.5 * NORMAL_LIMIT),
    (initializers.TruncatedNormal(-1.0, 0.5), -1.0, 0.5 * CUT, 1.0),
    (initializers.GlorotUniform(), 0.0, math.sqrt(1 / 350), math.sqrt(3 / 350)),
    (initializers.GlorotNormal(), 0.0, math.sqrt(1 / 350), 2 * math.sqrt(1 / 350) / CUT),
    (initializers.HeUniform(), 0.0, math.sqrt(2 / 400), math.sqrt(6 / 400)),
    (initializers.HeNormal(), 0.0, math.sqrt(2 / 400), 2 * math.sqrt(2 / 400) / CUT),
    (initializers.LecunUniform(), 0.0, math.sqrt(1 / 400), math.sqrt(3 / 400)),
    (initializers.LecunNormal(), 0.0, math.sqrt(1 / 400), 2 * math.sqrt(1 / 400) / CUT),
    (initializers.VarianceScaling(3.0, "fan_out", "uniform"), 0.0, math.sqrt(3 / 300), math.sqrt(9 / 300)),
    (
        initializers.VarianceScaling(3.0, "fan_avg", "truncated_normal"),
        0.0,
        math.sqrt(3 / 350),
        2 * math.sqrt(3 / 350) / CUT,
    ),
    (
        initializers.VarianceScaling(3.0, "fan_in", "untruncated_normal"),
        0.0,
        math.sqrt(3 / 400),
        math.sqrt(3 / 400) * NORMAL_LIMIT,
    ),
]
spreads = pytest.mark.parametrize(
    "initializer, mean, deviation, limit", SPREADS, ids=[f"{type(s[0]).__name__}-{i}" for i, s in enumerate(SPREADS)]
)


def has_spread(value, mean, deviation, limit):
    """Mean and deviation within five of their standard errors (of 120,000 numbers), and nothing beyond the limit."""
    error = deviation / math.sqrt(value.size)
    near = abs(value.mean() - mean) < 5 * error and abs(value.std() - deviation) < 5 * error
    return near and np.abs(value - mean).max() <= limit * (1 + 1e-6)


@spreads
def test_a_draw_has_the_moments_and_the_bounds_of_its_initialiser(initializer, mean, deviation, limit):
    value = drawn(initializer)
    assert value.shape == SHAPE
    assert has_spread(value, mean, deviation, limit)
    bounded = limit < 4 * deviation
    assert np.abs(value - mean).max() > (0.99 * limit if bounded else 3.5 * deviation)
    assert not has_spread(value * 1.05 + 0.05 * mean, mean, deviation, limit)  # 5 % off is seen
    assert not has_spread(value + 0.05 * deviation, mean, deviation, 2 * limit)


@spreads
def test_the_initialiser_of_keras_has_the_same_spread(initializer, mean, deviation, limit):
    seeded = type(initializer).from_config({**initializer.get_config(), "seed": 1})
    assert has_spread(np.asarray(ops.convert_to_numpy(seeded(SHAPE)), "float64"), mean, deviation, limit)


@pytest.mark.parametrize(
    "shape, fans", [((30_000,), (30_000, 30_000)), ((3, 5, 40, 60), (600, 900)), ((100, 300), (100, 300)), ((), None)]
)
def test_fans_count_the_receptive_field(shape, fans):
    if fans is None:
        with pytest.raises(IndexError):
            drawn(initializers.HeUniform(), shape)
        return
    for initializer, fan in ((initializers.LecunUniform(), fans[0]), (initializers.GlorotUniform(), sum(fans) / 2)):
        value, limit = drawn(initializer, shape), math.sqrt(3 / fan)
        assert 0.99 * limit < np.abs(value).max() <= limit * (1 + 1e-6)


@pytest.mark.parametrize("shape", [(6, 6), (4, 9), (9, 4), (2, 3, 4)])
def test_an_orthogonal_draw_has_orthonormal_rows_or_columns(shape):
    value = drawn(initializers.Orthogonal(gain=2.0), shape)
    assert value.shape == shape
    matrix = value.reshape(-1, shape[-1])
    matrix = matrix if matrix.shape[0] <= matrix.shape[1] else matrix.T
    np.testing.assert_allclose(matrix @ matrix.T, 4 * np.eye(len(matrix)), atol=1e-12)
    plain = drawn(initializers.RandomNormal(), shape).reshape(-1, shape[-1])
    assert np.abs(plain @ plain.T - np.diag(np.diag(plain @ plain.T))).max() > 1e-4


def test_orthogonal_draws_have_no_preferred_sign():
    """Q of a QR factorisation has a side unless its signs are fixed: then its diagonal would always be negative."""
    diagonals = np.array([np.diag(drawn(initializers.Orthogonal(), (3, 3), seed)) for seed in range(200)])
    assert np.all(np.abs((diagonals > 0).mean(0) - 0.5) < 0.2)


@pytest.mark.parametrize("initializer", [initializers.Zeros(), initializers.Ones(), initializers.Constant(3.0)])
def test_constants_draw_nothing(initializer):
    assert drawn(initializer) is None


def test_an_unknown_class_is_refused():
    with pytest.raises(UsageError, match="Received: STFT"):
        draw("STFT", {}, SHAPE, Stream(0))


def stack(*names):
    """Dense layers of one shape, as a functional model, whose paths do not hold its own name."""
    inputs = x = keras.Input((5,))
    for name in names:
        x = keras.layers.Dense(5, name=name)(x)
    return keras.Model(inputs, x)


def values(model):
    return {variable.path: np.array(ops.convert_to_numpy(variable)) for variable in model.trainable_variables}


def test_a_weight_depends_on_its_path_and_the_seed_alone():
    first = values(initialize(stack("a", "b"), 0))
    again = values(initialize(stack("b", "c", "a"), 0))
    for path in first:
        np.testing.assert_array_equal(again[path], first[path])
    assert not np.array_equal(first["a/kernel"], first["b/kernel"])
    assert not np.array_equal(first["a/kernel"], values(initialize(stack("a"), 1))["a/kernel"])
    assert np.all(np.abs(first["a/kernel"]) <= math.sqrt(6 / 10))


def test_a_second_call_gives_the_weights_of_the_first():
    model = stack("a")
    first = values(initialize(model, 3))
    assert not np.array_equal(values(initialize(model, 4))["a/kernel"], first["a/kernel"])
    np.testing.assert_array_equal(values(initialize(model, 3))["a/kernel"], first["a/kernel"])


def test_constants_keep_their_value_also_on_a_layer_alone():
    layer = LSTM(4, name="lstm")
    layer.build((None, None, 3))
    before = values(layer)
    assert initialize(layer, 0) is layer
    after = values(layer)
    np.testing.assert_array_equal(after["lstm/bias"], [0] * 4 + [1] * 4 + [0] * 8)
    assert not np.array_equal(after["lstm/kernel"], before["lstm/kernel"])
    np.testing.assert_allclose(after["lstm/recurrent_kernel"] @ after["lstm/recurrent_kernel"].T, np.eye(4), atol=1e-6)


def test_every_kernel_of_a_model_is_drawn():
    model = AttentionSeq2Seq(9, 11, 6, 8, num_layers=2)
    before = values(model)
    after = values(initialize(model, 0))
    kept = {path for path in after if np.array_equal(after[path], before[path])}
    assert kept == {path for path in after if path.endswith("bias")} and kept


def test_a_shared_layer_is_drawn_once():
    shared = keras.layers.Dense(5, name="shared")
    inputs = keras.Input((5,))
    twice = initialize(keras.Model(inputs, shared(shared(inputs))), 0)
    assert [variable.path for variable in twice.trainable_variables] == ["shared/kernel", "shared/bias"]
    np.testing.assert_array_equal(values(twice)["shared/kernel"], values(initialize(stack("shared"), 0))["shared/kernel"])


def test_a_frozen_layer_is_drawn_too():
    """It takes part in the outputs, so it must be equal everywhere."""
    model, free = stack("a", "b"), initialize(stack("a", "b"), 0)
    model.get_layer("a").trainable = False
    initialize(model, 0)
    assert len(model.trainable_variables) == 2
    for found, expected in zip(model.weights, free.weights, strict=True):
        np.testing.assert_array_equal(ops.convert_to_numpy(found), ops.convert_to_numpy(expected))


def test_a_model_that_is_not_built_is_refused():
    with pytest.raises(UsageError, match="Expected a built model. Received: late"):
        initialize(keras.Sequential([keras.layers.Dense(2)], name="late"), 0)


class Silent(keras.layers.Layer):
    """A layer that keeps no initialiser."""

    def build(self, x_shape):
        self.scale = self.add_weight(name="scale", shape=(2,), initializer="ones")


def test_a_weight_without_a_kept_initialiser_is_refused_by_name():
    layer = Silent(name="silent")
    layer.build((None, 2))
    with pytest.raises(UsageError, match="Expected silent to keep the initialiser of silent/scale as scale_initializer"):
        initialize(layer, 0)
    layer.scale_initializer = initializers.Ones()
    initialize(layer, 0)


class Odd(initializers.Initializer):
    def __call__(self, shape, dtype=None):
        return ops.ones(shape, dtype)

    def get_config(self):
        return {}


def test_an_initialiser_of_a_user_is_refused_by_its_class():
    layer = keras.layers.Dense(2, kernel_initializer=Odd())
    layer.build((None, 2))
    with pytest.raises(UsageError, match="Received: Odd"):
        initialize(layer, 0)
