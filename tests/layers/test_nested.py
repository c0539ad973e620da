"""A layer within a layer: on torch only called, with the results and the effects of Keras' own call."""

import keras
import numpy as np
import pytest
from keras import ops

from k3seq import backend
from k3seq.layers.dense import Dense
from k3seq.layers.dropout import Dropout
from k3seq.layers.lstm import LSTM
from k3seq.layers.nested import Nested

X = np.random.default_rng(0).normal(size=(2, 3, 4)).astype("float32")


class Outer(keras.layers.Layer):
    """Calls one layer, which has its training from the context of the call."""

    def __init__(self, inner, **kwargs):
        super().__init__(**kwargs)
        self.inner = inner

    def build(self, x_shape):
        self.inner.build(x_shape)

    def call(self, x, training=False):
        return self.inner(x)


class Given(Outer):
    """Hands training on."""

    def call(self, x, training=False):
        return self.inner(x, training=training)


class Seen(Nested, keras.layers.Layer):
    """Adds its weight, and records the type and the training flag of each call."""

    def __init__(self, **kwargs):
        super().__init__(**kwargs)
        self.seen = []

    def build(self, x_shape):
        self.scale = self.add_weight(name="scale", shape=(), initializer="ones", regularizer=keras.regularizers.L2(0.5))

    def call(self, x, training=None):
        self.seen.append((keras.backend.standardize_dtype(x.dtype), training))
        self.add_loss(ops.sum(ops.cast(x, "float32")))
        return x * ops.cast(self.scale, x.dtype)


@pytest.fixture
def answers(monkeypatch):
    """The answers of `backend.ready`, in order."""
    answers, original = [], backend.ready
    monkeypatch.setattr(backend, "ready", lambda *args: answers.append(original(*args)) or answers[-1])
    return answers


def eager():
    return keras.backend.backend() == "torch"


@pytest.mark.parametrize("inner", [LSTM(3), Dense(3, activation="tanh"), Dropout(0.5)], ids=lambda layer: layer.name)
def test_a_nested_layer_gives_the_same_result_as_alone(inner, answers):
    outer = Outer(inner) if isinstance(inner, LSTM) else Given(inner)
    outer.build((2, 3, 4))
    alone, within = keras.tree.flatten(inner(X)), keras.tree.flatten(outer(X))
    for one, other in zip(alone, within, strict=True):
        np.testing.assert_array_equal(ops.convert_to_numpy(one), ops.convert_to_numpy(other))
    assert answers == [False, eager()]


def test_the_outer_layer_has_the_losses_of_the_inner_one(answers):
    outer = Outer(Seen())
    for _ in range(2):  # the second call begins anew
        outer(X, training=True)
        assert len(outer.losses) == 2
        np.testing.assert_allclose(ops.convert_to_numpy(sum(outer.losses)), X.sum() + 0.5, rtol=1e-5)


def test_the_inner_layer_gets_the_training_flag_of_the_outer_call(answers):
    outer = Outer(Seen())
    for training in (True, False):
        outer(X, training=training)
    assert [training for _, training in outer.inner.seen[-2:]] == [True, False] and not any(answers)


@pytest.mark.parametrize("training", [None, True])
def test_a_layer_without_a_training_argument_gets_none(training, answers):
    outer = Given(LSTM(3))
    outer.build((2, 3, 4))
    found, alone = outer(X, training=training), outer.inner(X)
    np.testing.assert_array_equal(ops.convert_to_numpy(found[0]), ops.convert_to_numpy(alone[0]))
    assert not any(answers)


def test_a_ready_layer_is_called_directly(answers, monkeypatch):
    outer = Given(Seen())
    outer(X, training=True)
    answers.clear()
    outer(X, training=True)
    assert answers == [eager()] and outer.inner.seen[-1] == ("float32", True)


CHANGES = {
    "a hook": lambda layer: layer.register_forward_hook(lambda *_: None),
    "an activity regulariser": lambda layer: setattr(layer, "activity_regularizer", keras.regularizers.L2(0.1)),
    "another type": lambda layer: setattr(layer, "dtype_policy", keras.DTypePolicy("bfloat16")),
}


@pytest.mark.parametrize("name", CHANGES)
def test_a_layer_that_is_not_ready_is_called_by_keras(name, answers):
    if name == "a hook" and not eager():
        pytest.skip("hooks are torch's")
    outer = Given(Seen())
    outer(X, training=True)
    CHANGES[name](outer.inner)
    answers.clear()
    outer(X, training=True)
    assert answers == [False]
    if name == "another type":
        assert outer.inner.seen[-1][0] == "bfloat16"


def test_a_patched_call_of_keras_sees_inner_calls_too(monkeypatch):
    outer, watched = Given(Seen()), []
    outer(X, training=True)
    original = keras.layers.Layer.__call__

    def call(self, *args, **kwargs):
        watched.append(self)
        return original(self, *args, **kwargs)

    monkeypatch.setattr(keras.layers.Layer, "__call__", call)
    outer(X, training=True)
    assert watched == [outer, outer.inner]


def test_mixed_precision_reaches_the_weights_of_an_inner_layer(answers):
    outer = Given(Seen(dtype="mixed_bfloat16"), dtype="mixed_bfloat16")
    outer(X, training=True)
    answers.clear()
    found = outer(X, training=True)
    assert answers == [eager()]
    assert keras.backend.standardize_dtype(found.dtype) == "bfloat16" and outer.inner.seen[-1][0] == "bfloat16"
    # Within an outer layer of another precision Keras casts.
    outer = Given(Seen(dtype="mixed_bfloat16"))
    outer(X, training=True)
    answers.clear()
    assert keras.backend.standardize_dtype(outer(X, training=True).dtype) == "bfloat16" and answers == [False]
