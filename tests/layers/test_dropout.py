"""Dropout: its masks against NumPy's on this backend, and training with it against training by hand."""

import keras
import numpy as np
import pytest
from keras import ops

from k3seq import backend
from k3seq.errors import UsageError
from k3seq.layers.dropout import Dropout, kept_of
from k3seq.models.lstm import LSTMSeq2Seq
from k3seq.random.bits import key_words, threefry

RATE, SEED, INPUTS, STEP = 0.3, 4, 6, 0.05
X = np.random.default_rng(0).normal(size=(5, 4, INPUTS)).astype("float32")
Y = np.random.default_rng(1).normal(size=(5, 4, 1)).astype("float32")


def numpy_mask(path, count, shape, rate=RATE, seed=SEED):
    """The documented mask: the key of seed and path, folded with the count; 16 bits each, all low halves first."""
    size = int(np.prod(shape))
    key = threefry(key_words(seed, path), np.array([count, 2**32 - 1], np.uint32))
    blocks = np.arange((size + 3) // 4, dtype=np.uint32)
    words = threefry(key, np.stack([blocks, np.zeros_like(blocks)])).reshape(-1)[: (size + 1) // 2]
    halves = np.concatenate([words & 0xFFFF, words >> 16]).astype(np.int64)[:size]
    return ((halves + 32768) % 65536 < round(65536 * (1 - rate))).reshape(shape)  # compared as signed numbers


def dropped(x, mask, rate=RATE):
    return np.where(mask, x * np.float32(65536 / round(65536 * (1 - rate))), np.float32(0))


@keras.saving.register_keras_serializable(package="test_dropout")
class Noisy(backend.StepMixin, keras.Model):
    """A linear model of what dropout leaves; weights 1 at first."""

    def __init__(self, rate=RATE, **kwargs):
        super().__init__(**kwargs)
        self.drop = Dropout(rate, seed=SEED, name="drop")
        self.dense = keras.layers.Dense(1, use_bias=False, kernel_initializer="ones", name="dense")
        self.drop.build((None, INPUTS))
        self.dense.build((None, INPUTS))
        self.built = True

    def call(self, x, training=False):
        return self.dense(self.drop(x, training=training))


def compiled(accumulate=1):
    model = Noisy()
    model.compile(keras.optimizers.SGD(STEP), loss="mse")
    model.step_options(gradient_accumulation_steps=accumulate)
    return model


def train(model, batches):
    losses = []
    for x, y in batches:
        model.reset_metrics()
        losses.append(float(model.train_on_batch(x, y, return_dict=True)["loss"]))
    return losses


def by_hand(batches, accumulate=1, mask_of=numpy_mask):
    """Losses and last weights of that training in float64, each micro-batch with the next mask."""
    w, count, losses = np.ones((INPUTS, 1)), 0, []
    for x, y in batches:
        loss, gradient = 0.0, 0.0
        for part, target in zip(np.split(x, accumulate), np.split(y, accumulate), strict=True):
            seen = dropped(part, mask_of("drop", count, part.shape)).astype("float64")
            error = seen @ w - target
            loss, gradient = loss + np.mean(error**2) / accumulate, gradient + seen.T @ error * 2 / len(x)
            count += 1
        losses.append(loss)
        w = w - STEP * gradient
    return losses, w


BATCHES = list(zip(X, Y, strict=True))
BATCHES[3] = (X[3, :2], Y[3, :2])  # another number of rows, which TensorFlow's graph then leaves open


@pytest.fixture(scope="module")
def trained():
    """(the model after five steps, their losses)."""
    model = compiled()
    return model, train(model, BATCHES)


def count(model):
    return int(ops.convert_to_numpy(model.drop.counter))


def test_training_with_dropout_equals_training_by_hand(trained):
    model, losses = trained
    expected, w = by_hand(BATCHES)
    np.testing.assert_allclose(losses, expected, rtol=1e-5)
    np.testing.assert_allclose(ops.convert_to_numpy(model.dense.kernel), w, rtol=1e-5, atol=1e-6)
    assert count(model) == 5
    same_mask, _ = by_hand(BATCHES, mask_of=lambda path, count, shape: numpy_mask(path, 0, shape))
    assert losses[0] == pytest.approx(same_mask[0]) and not np.allclose(losses[1:], same_mask[1:], rtol=1e-2)


def test_each_part_of_an_accumulated_batch_has_a_different_mask():
    model = compiled(accumulate=2)
    losses = train(model, BATCHES[:3])
    np.testing.assert_allclose(losses, by_hand(BATCHES[:3], accumulate=2)[0], rtol=1e-5)
    assert count(model) == 6
    assert not np.allclose(losses, by_hand(BATCHES[:3])[0], rtol=1e-2)


def test_refused_steps_and_evaluation_do_not_advance_the_mask(trained):
    model, _ = trained
    before = count(model)
    logs = model.train_on_batch(np.full_like(X[0], np.nan), Y[0], return_dict=True)
    assert logs["refused"] == 1 and count(model) == before
    w = ops.convert_to_numpy(model.dense.kernel)
    loss = model.evaluate(X[0], Y[0], verbose=0, return_dict=True)["loss"]
    assert loss == pytest.approx(float(np.mean((X[0] @ w - Y[0]) ** 2)), rel=1e-5) and count(model) == before


def test_a_loaded_model_continues_with_the_next_mask(trained, tmp_path):
    model, _ = trained
    model.save(tmp_path / "noisy.keras")
    loaded = keras.saving.load_model(tmp_path / "noisy.keras")
    assert count(loaded) == count(model) > 0
    again = Dropout.from_config(model.drop.get_config())
    assert again.get_config() == model.drop.get_config()
    mask = numpy_mask("drop", count(model), X[0].shape)
    np.testing.assert_array_equal(ops.convert_to_numpy(loaded.drop(X[0], training=True)), dropped(X[0], mask))
    assert not np.array_equal(mask, numpy_mask("drop", 0, X[0].shape))


def outputs(layer, x=X[0], calls=1, dtype="float32"):
    """Of calls in training."""
    x = ops.convert_to_tensor(x, dtype=dtype)
    return [ops.convert_to_numpy(ops.cast(layer(x, training=True), "float32")) for _ in range(calls)]


def test_the_masks_of_successive_calls_equal_numpy():
    layer = Dropout(RATE, seed=SEED, name="drop")
    first, second = outputs(layer, calls=2)
    np.testing.assert_array_equal(first, dropped(X[0], numpy_mask("drop", 0, X[0].shape)))
    np.testing.assert_array_equal(second, dropped(X[0], numpy_mask("drop", 1, X[0].shape)))
    np.testing.assert_array_equal(ops.convert_to_numpy(layer(X[0])), X[0])


def test_seed_and_path_each_change_the_mask():
    for name, seed in (("other", SEED), ("drop", SEED + 1)):
        [found] = outputs(Dropout(RATE, seed=seed, name=name))
        np.testing.assert_array_equal(found, dropped(X[0], numpy_mask(name, 0, X[0].shape, seed=seed)))
        assert not np.array_equal(found, dropped(X[0], numpy_mask("drop", 0, X[0].shape)))


def test_a_noise_shape_drops_whole_axes():
    layer = Dropout(RATE, seed=SEED, noise_shape=[None, 1], name="drop")
    [found] = outputs(layer)
    np.testing.assert_array_equal(found, dropped(X[0], numpy_mask("drop", 0, (4, 1))))
    assert layer.get_config()["noise_shape"] == (None, 1)


@pytest.mark.parametrize("dtype", ["float16", "bfloat16"])
def test_half_precision_has_the_same_mask_and_one_rounding_per_number(dtype):
    [found] = outputs(Dropout(RATE, seed=SEED, name="drop", dtype=f"mixed_{dtype}"), dtype=dtype)
    half = lambda x: ops.convert_to_numpy(ops.cast(ops.cast(x, dtype), "float32"))  # noqa: E731
    scale = half(np.float32(65536 / kept_of(RATE)))
    expected = np.where(numpy_mask("drop", 0, X[0].shape), half(half(X[0]) * scale), 0)
    np.testing.assert_array_equal(found, expected)
    assert not np.array_equal(found, dropped(X[0], numpy_mask("drop", 0, X[0].shape)))


def test_dropped_inputs_have_zero_gradient_even_if_not_finite():
    mask = numpy_mask("drop", 0, X[0].shape)
    layer = Dropout(RATE, seed=SEED, name="drop")
    layer.build(X[0].shape)
    counter = ops.convert_to_numpy(layer.counter)

    def total(x):
        with keras.StatelessScope([(layer.counter, ops.convert_to_tensor(counter))]):
            return ops.sum(layer(x, training=True))

    value, gradient = backend.value_and_grad(total)(np.where(mask, X[0], np.inf).astype("float32"))
    np.testing.assert_allclose(float(value), dropped(X[0], mask).sum(), rtol=1e-5)
    np.testing.assert_array_equal(ops.convert_to_numpy(gradient), dropped(np.ones_like(X[0]), mask))


def test_native_masks_come_from_the_backend_at_the_same_rate():
    layer, x = Dropout(RATE, seed=SEED, native=True, name="drop"), np.ones((64, 64), "float32")
    first, second = outputs(layer, x, calls=2)
    assert layer.variables and not layer.weights and not np.array_equal(first, second)
    for found in (first, second):
        assert abs((found > 0).mean() - (1 - RATE)) < 5 * np.sqrt(RATE * (1 - RATE) / x.size)
        np.testing.assert_allclose(np.unique(found), [0, 1 / (1 - RATE)], rtol=1e-6)
    assert Dropout.from_config(layer.get_config()).native
    assert not np.array_equal(first, outputs(Dropout(RATE, seed=SEED, native=True, name="other"), x)[0])


def test_rate_zero_has_no_variable_and_no_effect():
    layer = Dropout(0)
    [found] = outputs(layer)
    assert layer.variables == [] and np.array_equal(found, X[0])
    model = LSTMSeq2Seq()
    assert model.count_params() == 141380 and len(model.variables) == len(model.trainable_weights) == 10


once = pytest.mark.once


@once
def test_rate_one_gives_zeros_and_tiny_rates_still_drop():
    assert not np.any(outputs(Dropout(1.0))[0])
    assert [kept_of(rate) for rate in (1, 1 - 1e-9, 0.5, 1e-9)] == [0, 1, 32768, 65535]


@once
@pytest.mark.parametrize("rate", [0.1, 0.5, 0.9])
def test_every_position_is_dropped_at_the_rate(rate):
    mask = np.stack([numpy_mask("drop", count, (250, 2), rate) for count in range(400)])
    for share, size in ((mask.mean(), mask.size), (mask.mean((0, 1)), mask[..., 0].size), (mask.mean((1, 2)), 500)):
        assert np.all(np.abs(share - (1 - rate)) < 5 * np.sqrt(rate * (1 - rate) / size))


@once
def test_a_noise_shape_of_another_rank_is_refused():
    with pytest.raises(UsageError, match=r"with the rank of \(4, 6\). Received: noise_shape=\(1, None, 1\)"):
        Dropout(0.1, noise_shape=(1, None, 1)).build((4, 6))
