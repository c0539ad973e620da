"""Each private name of Keras is hidden in turn: what stands in its place works."""

import keras
import numpy as np
import pytest
from keras import ops

from k3seq.backend import keras_internals as internals
from k3seq.errors import UsageError
from tagger import LABELS, TOKENS, WEIGHTS, Tagger, largest_difference, values


@pytest.fixture
def hidden(monkeypatch):
    """Hides names of `keras_internals`, as if this Keras had none of them."""
    return lambda *names: [monkeypatch.setattr(internals, name, None) for name in names]


@pytest.fixture
def without(monkeypatch):
    """Hides attributes from `hasattr` and `getattr` of `keras_internals`."""

    def hide(*names):
        def get(thing, name, *default):
            if name in names and not default:
                raise AttributeError(name)
            return default[0] if name in names else getattr(thing, name, *default)

        monkeypatch.setattr(internals, "getattr", get, raising=False)
        monkeypatch.setattr(internals, "hasattr", lambda thing, name: name not in names and hasattr(thing, name), raising=False)

    return hide


class Outer(keras.layers.Layer):
    """Remembers the running call that it sees, and that an inner layer sees."""

    def __init__(self, inner=None):
        super().__init__()
        self.inner, self.seen = inner, []

    def call(self, x):
        self.seen.append(internals.running_call())
        return x if self.inner is None else self.inner(x)


@pytest.mark.parametrize("hide", [False, True], ids=["Keras' own", "hidden"])
def test_the_running_call_is_that_of_the_outermost_layer(hide, hidden, monkeypatch):
    if hide:
        hidden("_get_global")
        monkeypatch.setattr(keras.layers.Layer, "__call__", internals._watching(keras.layers.Layer.__call__))
    inner = Outer()
    outer = Outer(inner)
    outer(np.ones((1, 1)))
    assert internals.running_call() is None
    assert outer.seen[-1] is inner.seen[-1] and outer.seen[-1].entry_layer is outer
    with pytest.raises(ZeroDivisionError):
        keras.layers.Lambda(lambda x: 1 // 0)(np.ones((1, 1)))
    assert internals.running_call() is None
    first = outer.seen[-1]
    outer(np.ones((1, 1)))
    assert outer.seen[-1] is not first


def test_a_stateless_scope_is_found_and_is_none_where_hidden(hidden):
    with keras.StatelessScope() as scope:
        assert internals.stateless_scope() is scope
        hidden("_get_global")
        assert internals.stateless_scope() is None


@pytest.mark.parametrize("hide", [False, True], ids=["Keras' own", "hidden"])
def test_shape_inference_is_noticed(hide, hidden):
    if hide:
        hidden("_in_symbolic_scope")
    seen = []

    def look(x):
        seen.append(internals.has_placeholders())
        return x

    assert not internals.has_placeholders()
    keras.Function(x := keras.Input((2,)), keras.layers.Lambda(look)(x))
    assert seen and all(seen) and not internals.has_placeholders()


def trained(model):
    """(values of all variables, logs) after two steps of Adam."""
    model.compile(keras.optimizers.Adam(0.1), loss="sparse_categorical_crossentropy", weighted_metrics=["accuracy"])
    logs = [model.train_on_batch(TOKENS, LABELS, WEIGHTS) for _ in range(2)]
    return values(model), np.array(logs)


ATTRIBUTES = ["_call_context_args", "_remat_mode", "_momentums", "_velocities", "_trainable_variables", "_compile_metrics"]


@pytest.mark.parametrize(
    "names",
    [("_autocast_scope",), ("_get_mask",), ("_set_global",), *[(name,) for name in ATTRIBUTES], ("_flatten_metrics_in_order",)],
    ids="".join,
)
def test_a_train_step_without_a_private_name_gives_the_same_weights_and_logs(names, hidden, without):
    expected, logs = trained(Tagger())
    hidden(*(name for name in names if hasattr(internals, name)))
    without(*names)
    found, other = trained(Tagger())
    assert largest_difference(found, expected) < 1e-6
    np.testing.assert_allclose(np.sort(other), np.sort(logs), rtol=1e-5)
    assert largest_difference(found, values(Tagger())) > 1e-3


def test_adam_without_its_private_moments_is_left_to_keras(without):
    optimizer = keras.optimizers.Adam(0.1)
    optimizer.build([keras.Variable(1.0)])
    kept, momentums, velocities = internals.adam_state(optimizer)
    assert len(kept) == len(momentums) == len(velocities) == 1
    without("_momentums")
    assert internals.adam_state(optimizer) is None


class Nest(keras.layers.Layer):
    """Holds layers as an attribute, in a list and in a dict."""

    def __init__(self):
        super().__init__()
        self.one = keras.layers.Dense(2, name="one")
        self.several = [keras.layers.Dense(2, name="two"), keras.Sequential([keras.layers.Dense(2, name="three")])]
        self.named = {"a": keras.layers.Dense(2, name="four")}
        self.scale = self.add_weight(shape=(), name="scale")
        self.fixed = self.add_weight(shape=(), name="fixed", trainable=False)

    def build(self, shape):
        for layer in (self.one, *self.several, *self.named.values()):
            layer.build(shape)


@pytest.mark.parametrize("options", [{}, {"include_self": False}, {"recursive": False}])
def test_the_layers_of_a_layer_are_found_without_the_private_list(options, without):
    nest = Nest()
    nest.build((None, 2))

    def names():
        layers = internals.layers_of(nest, **options)
        return sorted(layer.name for layer in layers if not isinstance(layer, keras.layers.InputLayer))

    expected = names()
    without("_flatten_layers")
    assert names() == expected and {"one", "two", "four"} <= set(expected)


@pytest.mark.parametrize("trainable", [False, True])
def test_a_layers_own_weights_are_found_without_the_private_lists(trainable, without):
    nest = Nest()
    nest.build((None, 2))
    expected = ["scale"] if trainable else ["scale", "fixed"]
    assert [weight.name for weight in internals.own_weights(nest, trainable)] == expected
    without("_trainable_variables", "_non_trainable_variables")
    assert [weight.name for weight in internals.own_weights(nest, trainable)] == expected


@pytest.mark.parametrize("hide", [(), ("_keras_history",), ("_inbound_nodes",)], ids=str)
def test_the_inputs_behind_a_tensor_are_found(hide, without):
    a, b, other = (keras.Input((2,), name=name) for name in ("a", "b", "other"))
    x = keras.layers.Add()([a, b])
    tensor = keras.layers.Multiply()([x, x])
    without(*hide)
    found = internals.source_inputs([tensor])
    assert len(found) == 2 and found[0] is a and found[1] is b
    assert internals.operation_of(a).name == "a" and other not in found
    with pytest.raises(UsageError, match="a tensor that layers made from keras.Input"):
        internals.source_inputs(keras.KerasTensor((2,)))


def test_the_inputs_of_a_functional_model_are_found_without_their_private_structure(without):
    x = keras.Input((2,), name="x")
    model = keras.Model({"x": x}, keras.layers.Dense(1)(x))
    assert internals.functional_inputs(model) == {"x": x} and internals.functional_inputs(Nest()) is None
    without("_inputs_struct")
    assert internals.functional_inputs(model) is x and internals.functional_inputs(Nest()) is None


def test_an_error_of_k3seq_in_a_layer_has_its_message_with_and_without_the_mark(monkeypatch):
    def fail(x):
        raise UsageError("Expected more. Received: less")

    class Fails(keras.layers.Layer):
        def call(self, x):
            fail(x)

    with pytest.raises(UsageError, match=r"^Expected more. Received: less$"):
        Fails()(ops.ones((1, 1)))
    monkeypatch.delattr(UsageError, "_keras_call_info_injected")
    with pytest.raises(ValueError, match=r"Expected more. Received: less"):
        Fails()(ops.ones((1, 1)))


@pytest.mark.parametrize("hide", [False, True], ids=["Keras' own", "hidden"])
def test_the_array_of_a_variable_is_found_or_none_where_hidden(hide):
    variable = keras.Variable([1.0, 2.0])
    if hide:
        assert internals.stored_value(object()) is None
        return
    stored = internals.stored_value(variable)
    internals.store_value(variable, stored)
    np.testing.assert_array_equal(keras.ops.convert_to_numpy(variable), [1.0, 2.0])
