"""Stacked recurrent layers against float64, layer upon layer."""

import keras
import numpy as np
import pytest
from keras import ops, tree

from golden import relative_error
from k3seq.layers.stack import RecurrentStack
from oracles import lstm as oracle

B, S, X, D = 3, 6, 3, 4
LENGTHS = np.array([4, 0, 6], "int32")


def drawn(*shape, seed=0):
    return np.random.default_rng(seed).normal(size=shape).astype("float32")


def stack(kind, num_bidirectional, **options):
    """(a stack of two, the weights of each layer: one dict, or two where it is bidirectional)."""
    made = RecurrentStack(kind, D, 2, num_bidirectional, **options)
    made.build((None, None, X))
    gates, weights = (4 if kind == "lstm" else 3), []
    for index, layer in enumerate(made.recurrent):
        parts = [layer.forward_layer, layer.backward_layer] if index < num_bidirectional else [layer]
        inputs, units = (D if index else X), (D // 2 if index < num_bidirectional else D)
        weights.append(
            [oracle.random_weights(np.random.default_rng(7 * index + i), inputs, units, gates) for i in range(len(parts))]
        )
        for part, values in zip(parts, weights[-1], strict=True):
            for name, value in values.items():
                getattr(part, name).assign(value)
    return made, weights


def expected(kind, weights, x, mask):
    cell, states = getattr(oracle, kind), []
    for values in weights:
        if len(values) == 2:
            x, forward, backward = oracle.bidirectional(x, *values, mask, cell=cell)
            states.append([np.concatenate(pair, -1) for pair in zip(forward, backward, strict=True)])
        else:
            x, last = cell(x, values[0], mask)
            states.append(list(last))
    return x, states


@pytest.mark.parametrize("kind", ["lstm", "gru"])
@pytest.mark.parametrize("num_bidirectional", [0, 1])
def test_each_layer_reads_the_outputs_of_the_layer_below(kind, num_bidirectional):
    made, weights = stack(kind, num_bidirectional)
    x, mask = drawn(B, S, X), oracle.length_mask(LENGTHS, S)
    outputs, states = made(ops.convert_to_tensor(x), ops.convert_to_tensor(LENGTHS))
    want, last = expected(kind, weights, x, mask)
    assert relative_error(ops.convert_to_numpy(outputs), want) < 2e-6
    for got, value in zip(tree.flatten(states), tree.flatten(last), strict=True):
        assert relative_error(ops.convert_to_numpy(got), value) < 2e-6
    assert relative_error(ops.convert_to_numpy(outputs), expected(kind, weights, x, None)[0]) > 1e-3
    assert [line.split(":")[0] for line in made.explain().split("\n")] == [f"{kind}_0", f"{kind}_1"]


def test_single_steps_equal_the_whole_sequence():
    made, _ = stack("gru", 0)
    x = drawn(B, S, X)
    outputs, states = made(ops.convert_to_tensor(x)), [layer.start(B) for layer in made.recurrent]
    for t in range(S):
        output, states = made.step(ops.convert_to_tensor(x[:, t]), states)
        assert relative_error(ops.convert_to_numpy(output), ops.convert_to_numpy(outputs[0])[:, t]) < 2e-6


def test_dropout_acts_between_layers_in_training_only():
    made, _ = stack("lstm", 0, dropout=0.5)
    plain, _ = stack("lstm", 0)
    x = ops.convert_to_tensor(drawn(B, S, X))
    evaluated, dropped, without = (ops.convert_to_numpy(o) for o in (made(x)[0], made(x, training=True)[0], plain(x)[0]))
    np.testing.assert_array_equal(evaluated, without)
    assert np.abs(dropped - evaluated).max() > 1e-3


def test_saved_and_loaded_it_gives_the_same_output(tmp_path):
    inputs = keras.Input((S, X))
    model = keras.Model(inputs, RecurrentStack("gru", D, 2, 1, padding="left")(inputs)[0])
    model.save(tmp_path / "model.keras")
    x = drawn(B, S, X)
    again = keras.saving.load_model(tmp_path / "model.keras")
    np.testing.assert_array_equal(ops.convert_to_numpy(model(x)), ops.convert_to_numpy(again(x)))
