"""LSTM layers against the float64 oracle: padded, full and empty rows, initial states, both paths, gradients."""

import keras
import numpy as np
import pytest
from keras import ops

from golden import relative_error
from k3seq import backend
from k3seq.layers.lstm import LSTM, BidirectionalLSTM, reverse_rows
from oracles import lstm as oracle

LENGTHS = {"all": None, "padded": [4, 1, 6], "empty": [0, 6, 3], "all empty": [0, 0, 0]}
paths = pytest.mark.parametrize("fused", [True, False], ids=["native", "keras.ops"])
rows = pytest.mark.parametrize("lengths", LENGTHS.values(), ids=LENGTHS)


def drawn(*shape, seed=0):
    return np.random.default_rng(seed).normal(size=shape).astype("float32")


def layer(fused, units=4, inputs=3, seed=0):
    made = LSTM(units, fused=fused)
    made.build((None, None, inputs))
    weights = oracle.random_weights(np.random.default_rng(seed), inputs, units)
    for name, value in weights.items():
        getattr(made, name).assign(value)
    return made, weights


def masks(lengths, steps=6):
    return None if lengths is None else oracle.length_mask(lengths, steps)


def called(made, x, lengths, initial=None):
    lengths = None if lengths is None else np.array(lengths, "int32")
    outputs, (h, c) = made(ops.convert_to_tensor(x), lengths, initial)
    return [ops.convert_to_numpy(value) for value in (outputs, h, c)]


@paths
@rows
@pytest.mark.parametrize("initial", [False, True])
def test_lstm_equals_float64(fused, lengths, initial):
    made, weights = layer(fused)
    x = drawn(3, 6, 3)
    states = (drawn(3, 4, seed=1), drawn(3, 4, seed=2)) if initial else None
    expected, last = oracle.lstm(x, weights, masks(lengths), states)
    for got, want in zip(called(made, x, lengths, states), (expected, *last), strict=True):
        assert relative_error(got, want) < 2e-6


@paths
def test_a_wrong_gate_order_a_missing_bias_or_another_length_is_seen(fused):
    made, weights = layer(fused)
    x, lengths = drawn(3, 6, 3), LENGTHS["padded"]
    got, _, _ = called(made, x, lengths)
    i, f, g, o = np.split(weights["kernel"], 4, axis=-1)
    faults = [
        ({**weights, "kernel": np.concatenate([f, i, g, o], axis=-1)}, lengths),
        ({**weights, "bias": np.zeros_like(weights["bias"])}, lengths),
        (weights, [4, 2, 6]),
    ]
    for faulty, other in faults:
        assert relative_error(got, oracle.lstm(x, faulty, masks(other))[0]) > 1e-3


@rows
def test_gradients_of_both_paths_are_equal(lengths):
    x, states = drawn(3, 6, 3), (drawn(3, 4, seed=1), drawn(3, 4, seed=2))
    probe = ops.convert_to_tensor(drawn(3, 6, 4, seed=3))
    gradients = []
    for fused in (True, False):
        made, weights = layer(fused)
        lengths_tensor = None if lengths is None else ops.convert_to_tensor(np.array(lengths, "int32"))
        from k3seq.layers import lstm as module

        sequence = backend.lstm_sequence if fused and backend.lstm_sequence else module.lstm

        names = ("kernel", "recurrent_kernel", "bias")

        def loss(arguments, sequence=sequence, lengths_tensor=lengths_tensor, names=names):
            outputs, h, c = sequence(arguments["x"], lengths_tensor, *(arguments[k] for k in ("h", "c", *names)))
            return ops.sum(outputs * probe) + ops.sum(h) + ops.sum(c**2)

        arguments = {"x": x, "h": states[0], "c": states[1], **{k: weights[k].astype("float32") for k in names}}
        _, found = backend.value_and_grad(loss)({k: ops.convert_to_tensor(v) for k, v in arguments.items()})
        gradients.append({k: ops.convert_to_numpy(v) for k, v in found.items()})
    for name, gradient in gradients[0].items():
        np.testing.assert_allclose(gradient, gradients[1][name], rtol=1e-5, atol=1e-5 * max(1.0, np.abs(gradient).max()))


@paths
def test_what_stands_in_the_padding_changes_nothing(fused):
    made, _ = layer(fused)
    x = drawn(3, 6, 3)
    spoiled = np.where(oracle.length_mask(LENGTHS["padded"], 6)[:, :, None], x, 1e3).astype("float32")
    for clean, dirty in zip(called(made, x, [4, 1, 6]), called(made, spoiled, [4, 1, 6]), strict=True):
        np.testing.assert_array_equal(clean, dirty)


@paths
@rows
def test_bidirectional_equals_float64(fused, lengths):
    made = BidirectionalLSTM(4, fused=fused)
    made.build((None, None, 3))
    weights = [oracle.random_weights(np.random.default_rng(seed), 3, 4) for seed in (0, 1)]
    for direction, values in zip((made.forward_lstm, made.backward_lstm), weights, strict=True):
        for name, value in values.items():
            getattr(direction, name).assign(value)
    x = drawn(3, 6, 3)
    expected, ahead, back = oracle.bidirectional(x, *weights, masks(lengths))
    outputs, h, c = called_both(made, x, lengths)
    assert relative_error(outputs, expected) < 2e-6
    assert relative_error(h, np.concatenate([ahead[0], back[0]], -1)) < 2e-6
    assert relative_error(c, np.concatenate([ahead[1], back[1]], -1)) < 2e-6
    if lengths != [0, 0, 0]:
        assert relative_error(outputs, oracle.bidirectional(x, weights[0], weights[0], masks(lengths))[0]) > 1e-3


def called_both(made, x, lengths):
    outputs, (h, c) = made(ops.convert_to_tensor(x), None if lengths is None else np.array(lengths, "int32"))
    return [ops.convert_to_numpy(value) for value in (outputs, h, c)]


def test_reverse_rows_leaves_padding_where_it_is():
    x = np.arange(8).reshape(2, 4, 1)
    reversed_rows = ops.convert_to_numpy(reverse_rows(ops.convert_to_tensor(x), ops.convert_to_tensor([3, 0])))
    np.testing.assert_array_equal(reversed_rows[..., 0], [[2, 1, 0, 3], [4, 5, 6, 7]])


def test_steps_one_by_one_equal_the_whole_sequence():
    made, _ = layer(True)
    x = drawn(3, 6, 3)
    expected, *_ = called(made, x, None)
    states = made.start(3)
    for t in range(6):
        output, states = made.step(ops.convert_to_tensor(x[:, t]), states)
        assert relative_error(ops.convert_to_numpy(output), expected[:, t]) < 2e-6


def test_explain_tells_the_path():
    assert "fused=False" in LSTM(2, fused=False).explain()
    kernel = backend.describe()["kernels"]["lstm_sequence"]
    assert kernel in LSTM(2).explain()


def test_state_and_outputs_have_the_compute_dtype():
    made = LSTM(4, dtype="mixed_bfloat16")
    outputs, (h, c) = made(ops.convert_to_tensor(drawn(2, 3, 3)), np.array([2, 3], "int32"))
    assert {keras.backend.standardize_dtype(value.dtype) for value in (outputs, h, c)} == {"bfloat16"}
    assert keras.backend.standardize_dtype(made.kernel.dtype) == "float32"


def test_no_units_is_an_error():
    with pytest.raises(ValueError, match="units=0"):
        LSTM(0)


@pytest.mark.parametrize("kind", [LSTM, BidirectionalLSTM])
def test_saved_and_loaded_it_gives_the_same_output(kind, tmp_path):
    inputs, lengths = keras.Input((6, 3)), keras.Input((), dtype="int32")
    outputs, _ = kind(4)(inputs, lengths)
    model = keras.Model([inputs, lengths], outputs)
    model.save(tmp_path / "model.keras")
    again = keras.saving.load_model(tmp_path / "model.keras")
    x, n = drawn(3, 6, 3), np.array([4, 1, 6], "int32")
    np.testing.assert_array_equal(ops.convert_to_numpy(model([x, n])), ops.convert_to_numpy(again([x, n])))
