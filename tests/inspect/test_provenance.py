"""Which layers and weights stand behind a tensor or a model, and which of the weights get a gradient."""

import json

import keras
import numpy as np
import pytest
from keras import layers, ops

from k3seq.errors import UsageError
from k3seq.inspect import draw_provenance, provenance_of
from k3seq.random import initialize

X = np.random.default_rng(0).normal(size=(2, 4)).astype("float32")


@pytest.fixture(scope="module")
def graph():
    """A functional tensor with a shared layer, a part of two outputs of which one is lost, a stopped and a frozen branch."""
    inner = keras.Input((4,), name="inner")
    part = keras.Model(inner, [layers.Dense(4, name="kept")(inner), layers.Dense(4, name="lost")(inner)], name="part")
    x = keras.Input((4,), name="x")
    shared = layers.Dense(4, name="shared")
    kept, _ = part(shared(shared(x)))
    stopped = ops.stop_gradient(layers.Dense(4, name="stopped")(x))
    layers.Dense(4, name="unused")(x)  # of the same input, and nothing uses it
    return layers.Dense(4, name="frozen", trainable=False)(kept + stopped)


@pytest.fixture(scope="module")
def found(graph):
    return provenance_of(graph)


class Cell(layers.Layer):
    """A layer of layers, called once a step."""

    def __init__(self, **kwargs):
        super().__init__(**kwargs)
        self.dense = layers.Dense(4, name="dense")

    def build(self, shape):
        self.dense.build(shape)

    def call(self, x):
        return ops.tanh(self.dense(x))


class Subclassed(keras.Model):
    """A loop over a cell, a layer whose output is dropped, one that is never called, and a bias that the softmax takes out."""

    def __init__(self):
        super().__init__(name="subclassed")
        self.cell, self.dropped = Cell(name="cell"), layers.Dense(4, name="dropped")
        self.never, self.cancelled = layers.Dense(4, name="never"), layers.Dense(1, name="cancelled")
        self.integers = layers.Dense(4, name="integers")
        for layer in (self.cell, self.dropped, self.never, self.cancelled, self.integers):
            layer.build((None, 4))
        self.built = True

    def call(self, x):
        self.dropped(x)
        state = x
        for _ in range(3):
            state = self.cell(state)
        chosen = ops.one_hot(ops.argmax(self.integers(x), -1), 4)
        return ops.softmax(state + self.cancelled(x) + chosen, -1)


@pytest.fixture(scope="module")
def subclassed():
    return initialize(Subclassed(), seed=0)


@pytest.fixture(scope="module")
def provenance(subclassed):
    return provenance_of(subclassed, X)


def verdicts(found):
    """Layer -> the verdicts of its weights."""
    by_layer = {}
    for weight in found.weights:
        by_layer.setdefault(weight.path.split("/")[-2], set()).add(weight.verdict)
    return by_layer


def test_the_calls_behind_a_tensor_stand_in_the_order_of_computing_with_their_shapes(found):
    paths = [call.path for call in found.calls]
    stopped, rest = [p for p in paths if "stop" in p], [p for p in paths if "stop" not in p]
    assert rest == ["shared", "shared", "part", "lost", "kept", "add", "frozen"] and stopped[0] == "stopped"
    assert paths.index(stopped[1]) < paths.index("add")
    assert "unused" not in paths
    assert {shape for call in found.calls for shape, _ in call.left} == {(2, 4)}
    assert found.inputs == [("x", (2, 4), "float32")]
    assert [call.depth for call in found.calls if call.path in ("part", "kept", "lost")] == [0, 1, 1]


def test_each_call_shows_where_its_tensors_come_from(found):
    place = {call.path: number for number, call in enumerate(found.calls)}  # of two calls the later
    first, second = (number for number, call in enumerate(found.calls) if call.path == "shared")
    origins = {number: call.origins for number, call in enumerate(found.calls)}
    assert origins[first] == ("x",) and origins[second] == (first,)
    assert origins[place["part"]] == origins[place["kept"]] == (second,)
    assert origins[place["frozen"]][0] == place["frozen"] - 1
    add = origins[place["frozen"] - 1]
    assert place["part"] in add and len(add) == 2


def test_a_gradient_a_stopped_a_lost_and_a_frozen_weight_have_different_verdicts(found):
    assert verdicts(found) == {
        "shared": {"gradient"},
        "kept": {"gradient"},
        "lost": {"not reached"},
        "stopped": {"zero gradient"},
        "frozen": {"not trainable"},
    }
    assert [call.path for call in found.calls if call.used is False] == ["lost"]
    assert len(found.weights) == 10  # the shared layer's count once


def test_the_norm_is_that_of_the_gradient_of_the_projection():
    dense = layers.Dense(4, name="linear")
    x = keras.Input((4,), name="x")
    found = provenance_of(dense(x), {"x": X})
    projection = np.cos(1.7 * np.arange(8)).reshape(2, 4)
    kernel, bias = found.weights
    assert kernel.gradient == pytest.approx(np.linalg.norm(X.T @ projection), rel=1e-5)
    assert bias.gradient == pytest.approx(np.linalg.norm(projection.sum(0)), rel=1e-5)
    other = np.linalg.norm((X + 1).T @ projection)  # the control: other inputs have another gradient
    assert kernel.gradient != pytest.approx(other, rel=1e-2)


def test_a_subclassed_model_shows_a_dropped_output_a_layer_never_called_and_a_bias_that_cancels_out(provenance):
    assert verdicts(provenance) == {
        "dense": {"gradient"},
        "dropped": {"not reached"},
        "never": {"not reached"},
        "cancelled": {"zero gradient"},
        "integers": {"zero gradient"},  # read, but through an argmax
    }
    assert {call.path: call.used for call in provenance.calls}["dropped"] is False
    assert [weight.path.split("/")[-2] for weight in provenance.weights][-2:] == ["never"] * 2


def test_a_loop_is_shown_as_its_body(provenance):
    names = [(call.depth, call.path.split("/")[-1]) for call in provenance.calls]
    assert names == [(0, "subclassed"), (1, "dropped"), (1, "cell"), (2, "dense"), (1, "integers"), (1, "cancelled")]
    assert provenance.calls[2].origins == ("input", 2)  # first from the input, then from itself


def test_the_table_names_every_call_and_weight(provenance):
    lines = str(provenance).splitlines()
    assert lines[0] == "subclassed, computed from input (2, 4) float32"
    assert lines[-1] == "weights: 2 gradient, 4 zero gradient, 4 not reached"
    body = "\n".join(lines[2:-1])
    assert all(call.path in body for call in provenance.calls) and all(weight.path in body for weight in provenance.weights)
    assert sum("NOT USED: (2, 4) float32" in line for line in lines) == 1
    assert sum("(never called)" in line for line in lines) == 2


def test_the_data_are_json(provenance):
    data = json.loads(json.dumps(provenance.as_json(), allow_nan=False))
    assert {weight["verdict"] for weight in data["weights"]} == {"gradient", "zero gradient", "not reached"}
    assert data["calls"][2]["origins"] == ["input", 2] and data["calls"][2]["left"] == [[[2, 4], "float32"]]


def test_the_model_is_left_as_it_was(subclassed, provenance):
    assert not any("call" in vars(layer) for layer in subclassed._flatten_layers())
    assert all(np.isfinite(ops.convert_to_numpy(variable.value)).all() for variable in subclassed.variables)


def test_drawn_ids_stay_below_the_smallest_vocabulary_and_lengths_within_the_steps():
    tokens, lengths = keras.Input((None,), dtype="int32", name="tokens"), keras.Input((), dtype="int32", name="lengths")
    keep = ops.expand_dims(ops.cast(ops.greater(ops.expand_dims(lengths, 1), np.arange(4)), "float32"), -1)
    found = provenance_of(layers.Embedding(3, 2, name="embedding")(tokens) * keep)
    assert found.inputs == [("tokens", (2, 4), "int32"), ("lengths", (2,), "int32")]
    assert [weight.verdict for weight in found.weights] == ["gradient"]


def test_the_picture_has_a_box_for_each_call_and_colours_weights_by_verdict(found, provenance):
    for each, nothing in ((found, 0), (provenance, 1)):
        axes = draw_provenance(each).axes[0]
        boxes = [patch for patch in axes.patches if type(patch).__name__ == "FancyBboxPatch"]
        assert len(boxes) == len(each.inputs) + len(each.calls) + nothing  # the layers that were never called share a box
        assert len(axes.patches) - len(boxes) == sum(len(call.origins) for call in each.calls)
        colours = {text.get_text().rpartition(": ")[2].split(" 0")[0]: text.get_color() for text in axes.texts}
        assert colours["not reached"] != colours["zero gradient"] != "black"


@pytest.mark.parametrize(
    "target, inputs, message",
    [
        ("model", None, "Expected inputs to call subclassed with"),
        ("bare", None, "Expected a model, a layer or a tensor that layers made"),
        ("text", None, "Expected a model, a layer or a tensor that layers made"),
        ("tensor", {"y": X}, r"Expected a dict of the inputs x\. Received: \['y'\]"),
        ("integers", None, "Expected floats in the result"),
    ],
)
def test_what_cannot_be_answered_is_refused(target, inputs, message, subclassed, graph):
    x = keras.Input((4,), name="x")
    targets = {
        "model": subclassed,
        "bare": keras.KerasTensor((2, 4)),
        "text": "model",
        "tensor": graph,
        "integers": ops.argmax(x, -1),
    }
    with pytest.raises(UsageError, match=message):
        provenance_of(targets[target], inputs)


def structured(kind):
    """A model whose inputs and outputs have the structure that its name says."""
    x = keras.Input((4,), name="x")
    y = layers.Dense(2, name="dense")(x)
    models = {
        "one tensor": lambda: keras.Model(x, y),
        "a list of one": lambda: keras.Model([x], [y]),
        "a dict of one": lambda: keras.Model({"x": x}, {"y": y}),
        "nested": lambda: keras.Model({"a": [x]}, {"y": (y,)}),
        "Sequential": lambda: keras.Sequential([keras.Input((4,), name="x"), layers.Dense(2, name="dense")]),
        "Sequential without Input": lambda: _called(keras.Sequential([layers.Dense(2, name="dense")])),
    }
    return models[kind]()


def _called(model):
    model(X)
    return model


@pytest.mark.parametrize(
    "kind", ["one tensor", "a list of one", "a dict of one", "nested", "Sequential", "Sequential without Input"]
)
def test_inputs_of_every_structure_are_drawn(kind):
    found = provenance_of(structured(kind))
    assert len(found.inputs) == 1 and [weight.verdict for weight in found.weights] == ["gradient", "gradient"]
