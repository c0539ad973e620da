"""`DenseGradients` against Adam, RMSprop, Adagrad and SGD written down in float64 NumPy; the bare optimizer is the control."""

import keras
import numpy as np
import pytest

from k3seq.errors import UsageError
from k3seq.train.optimizers import DenseGradients

IDS = np.array([[1, 2, 1, 3, 1, 2]], "int32")
GRADIENTS = np.linspace(-1.0, 2.0, 18, dtype="float32").reshape(1, 6, 3)
TABLE = np.linspace(-0.5, 0.5, 12, dtype="float32").reshape(4, 3)
SQUARING = ("Adam", "RMSprop", "Adagrad")  # those that square the gradient


def weighted_sum(y_true, y_pred):
    return keras.ops.sum(y_true * y_pred)


def adam_step(weight, gradient, m, v, t, rate):
    m, v = 0.9 * m + 0.1 * gradient, 0.999 * v + 0.001 * gradient**2
    return weight - rate * np.sqrt(1 - 0.999**t) / (1 - 0.9**t) * m / (np.sqrt(v) + 1e-7), m, v


def one_step(name):
    """The table after one step at 0.1 of an embedding whose loss is the sum of GRADIENTS times the looked-up vectors."""
    gradient = np.zeros((4, 3))
    np.add.at(gradient, IDS[0], GRADIENTS[0].astype("float64"))
    table = TABLE.astype("float64")
    return {
        "Adam": adam_step(table, gradient, 0.0, 0.0, 1, 0.1)[0],
        "RMSprop": table - 0.1 * gradient / np.sqrt(0.1 * gradient**2 + 1e-7),
        "Adagrad": table - 0.1 * gradient / np.sqrt(0.1 + gradient**2 + 1e-7),
        "SGD": table - 0.1 * gradient,
    }[name]


def stock_step(optimizer):
    model = keras.Sequential([keras.Input((6,), dtype="int32"), keras.layers.Embedding(4, 3)])
    model.set_weights([TABLE])
    model.compile(optimizer, loss=weighted_sum)
    model.train_on_batch(IDS, GRADIENTS)
    return model.get_weights()[0]


@pytest.mark.parametrize("name", [*SQUARING, "SGD"])
def test_one_step_on_repeated_tokens_is_the_definition(name, backend):
    optimizer = getattr(keras.optimizers, name)
    assert np.abs(stock_step(DenseGradients(optimizer(0.1))) - one_step(name)).max() < 2e-6
    bare = np.abs(stock_step(optimizer(0.1)) - one_step(name)).max()
    assert bare > 1e-3 if backend == "tensorflow" and name in SQUARING else bare < 2e-6


STEPS = 20
RANDOM = np.random.default_rng(3)
SOURCE = RANDOM.integers(0, 5, (8, 6)).astype("int32")  # five tokens in six places: one at least comes twice
GOAL = RANDOM.normal(size=(8, 2)).astype("float32")
START = [(RANDOM.normal(size=shape) / 2).astype("float32") for shape in ((5, 4), (4, 2), (2,))]


def reference_losses(rate):
    """Losses of 20 Adam steps of embedding, mean over steps, dense and squared error; float64."""
    weights = [w.astype("float64") for w in START]
    moments = [(0.0, 0.0)] * 3
    losses = []
    for t in range(1, STEPS + 1):
        table, kernel, bias = weights
        pooled = table[SOURCE].mean(axis=1)
        error = pooled @ kernel + bias - GOAL
        losses.append(np.mean(error**2))
        upstream = 2 * error / error.size
        to_table = np.zeros_like(table)
        np.add.at(to_table, SOURCE, (upstream @ kernel.T)[:, None, :] / SOURCE.shape[1])
        gradients = [to_table, pooled.T @ upstream, upstream.sum(axis=0)]
        stepped = [adam_step(w, g, m, v, t, rate(t - 1)) for w, g, (m, v) in zip(weights, gradients, moments, strict=True)]
        weights, moments = [w for w, _, _ in stepped], [(m, v) for _, m, v in stepped]
    return np.array(losses)


def stock_model(optimizer):
    layers = [keras.layers.Embedding(5, 4), keras.layers.GlobalAveragePooling1D(), keras.layers.Dense(2)]
    model = keras.Sequential([keras.Input((6,), dtype="int32"), *layers])
    model.set_weights(START)
    model.compile(optimizer, loss="mse")
    return model


def fitted(model, epochs=STEPS):
    return np.array(model.fit(SOURCE, GOAL, batch_size=8, epochs=epochs, shuffle=False, verbose=0).history["loss"])


def away(losses, reference):
    return np.abs(losses - reference).max() / np.abs(reference).max()


def test_fit_on_the_stock_step_follows_adam_through_twenty_steps(backend):
    reference = reference_losses(lambda step: 0.05)
    assert away(fitted(stock_model(DenseGradients(keras.optimizers.Adam(0.05)))), reference) < 2e-6
    bare = away(fitted(stock_model(keras.optimizers.Adam(0.05))), reference)
    assert bare > 1e-4 if backend == "tensorflow" else bare < 2e-6


def test_a_loaded_model_continues_like_the_saved_one(tmp_path):
    schedule = keras.optimizers.schedules.ExponentialDecay(0.05, 10, 0.5)
    reference = reference_losses(lambda step: 0.05 * 0.5 ** (step / 10))
    model = stock_model(DenseGradients(keras.optimizers.Adam(schedule)))
    losses = fitted(model, 10)
    model.save(tmp_path / "model.keras")
    loaded = keras.saving.load_model(tmp_path / "model.keras")
    assert isinstance(loaded.optimizer, DenseGradients) and isinstance(loaded.optimizer.inner_optimizer, keras.optimizers.Adam)
    assert int(loaded.optimizer.iterations) == 10
    for before, after in zip(model.optimizer.variables, loaded.optimizer.variables, strict=True):
        np.testing.assert_array_equal(before.numpy(), after.numpy())
    assert away(np.concatenate([losses, fitted(loaded, 10)]), reference) < 2e-6
    fresh = stock_model(DenseGradients(keras.optimizers.Adam(schedule)))
    fresh.set_weights(model.get_weights())  # without the optimizer's state it goes elsewhere
    assert away(np.concatenate([losses, fitted(fresh, 10)]), reference) > 1e-4


def test_loss_scaling_wraps_it():
    optimizer = keras.optimizers.LossScaleOptimizer(DenseGradients(keras.optimizers.Adam(0.05)), initial_scale=1024.0)
    assert away(fitted(stock_model(optimizer)), reference_losses(lambda step: 0.05)) < 2e-6
    assert int(optimizer.step_counter) == STEPS  # every step was finite and was taken


def test_it_has_no_state_and_forwards_settings():
    inner = keras.optimizers.Adam(0.05, global_clipnorm=3.0)
    optimizer = DenseGradients(inner)
    model = stock_model(optimizer)
    optimizer.learning_rate = 0.25
    optimizer.loss_scale_factor = 8.0
    assert float(inner.learning_rate) == 0.25 and inner.loss_scale_factor == 8.0 and optimizer.global_clipnorm == 3.0
    assert float(optimizer.scale_loss(2.0)) == 16.0
    model.optimizer.build(model.trainable_variables)
    assert optimizer.built and [v.path for v in optimizer.variables] == [v.path for v in inner.variables]
    optimizer.build(model.trainable_variables)
    assert len(optimizer.variables) == len({id(v) for v in optimizer.variables}) == 2 + 2 * 3


@pytest.mark.parametrize("inner", [3, None, "adamant", "scaled"])
def test_other_objects_than_optimizers_are_refused(inner):
    if inner == "scaled":
        inner = keras.optimizers.LossScaleOptimizer(keras.optimizers.SGD(0.1))
    with pytest.raises(UsageError, match=r"^Expected .*\. Received: "):
        DenseGradients(inner)
