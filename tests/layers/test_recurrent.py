"""What LSTM and GRU have in common: float64, padding on either side, the backend's kernel against the definition."""

import keras
import numpy as np
import pytest
from keras import ops, tree

from golden import relative_error
from k3seq import backend
from k3seq.layers.gru import GRU, BidirectionalGRU
from k3seq.layers.lstm import LSTM, BidirectionalLSTM
from k3seq.layers.recurrent import reverse_rows, to_left, to_right
from oracles import lstm as oracle

B, S, D, X = 3, 6, 4, 3
LENGTHS = {"all": None, "padded": [4, 1, 6], "empty": [0, 6, 3], "all empty": [0, 0, 0]}
KINDS = {"lstm": (LSTM, BidirectionalLSTM, oracle.lstm, 4), "gru": (GRU, BidirectionalGRU, oracle.gru, 3)}
kinds = pytest.mark.parametrize("kind", KINDS)
paths = pytest.mark.parametrize("fused", [True, False], ids=["native", "keras.ops"])
rows = pytest.mark.parametrize("lengths", LENGTHS.values(), ids=LENGTHS)


def drawn(*shape, seed=0):
    return np.random.default_rng(seed).normal(size=shape).astype("float32")


def filled(made, weights):
    for name, value in weights.items():
        getattr(made, name).assign(value)


def layer(kind, fused=True, padding="right", seed=0):
    made = KINDS[kind][0](D, fused=fused, padding=padding)
    made.build((None, None, X))
    weights = oracle.random_weights(np.random.default_rng(seed), X, D, KINDS[kind][3])
    filled(made, weights)
    return made, weights


def numbers(made, x, lengths, initial=None):
    lengths = None if lengths is None else np.array(lengths, "int32")
    return [ops.convert_to_numpy(leaf) for leaf in tree.flatten(made(ops.convert_to_tensor(x), lengths, initial))]


def masks(lengths, padding="right"):
    mask = None if lengths is None else oracle.length_mask(lengths, S)
    return mask[:, ::-1] if padding == "left" and mask is not None else mask


def states(kind):
    return tuple(drawn(B, D, seed=i) for i in (1, 2)) if kind == "lstm" else (drawn(B, D, seed=1),)


@kinds
@paths
@rows
@pytest.mark.parametrize("padding", ["right", "left"])
def test_outputs_and_last_states_equal_float64(kind, fused, lengths, padding):
    made, weights = layer(kind, fused, padding)
    x, initial = drawn(B, S, X), states(kind)
    given = tree.pack_sequence_as(made.state_like, list(initial))
    expected, last = KINDS[kind][2](x, weights, masks(lengths, padding), initial)
    for got, want in zip(numbers(made, x, lengths, given), (expected, *last), strict=True):
        assert relative_error(got, want) < 2e-6
    if lengths is not None and any(lengths):
        other = KINDS[kind][2](x, weights, masks(lengths, "left" if padding == "right" else "right"), initial)[0]
        assert relative_error(numbers(made, x, lengths, given)[0], other) > 1e-3


@kinds
@rows
@pytest.mark.parametrize("padding", ["right", "left"])
def test_both_directions_equal_float64(kind, lengths, padding):
    _, both, cell, gates = KINDS[kind]
    made = both(D, padding=padding)
    made.build((None, None, X))
    weights = [oracle.random_weights(np.random.default_rng(seed), X, D, gates) for seed in (0, 1)]
    filled(made.forward_layer, weights[0])
    filled(made.backward_layer, weights[1])
    x = drawn(B, S, X)
    expected, forward, backward = oracle.bidirectional(x, *weights, masks(lengths, padding), cell=cell)
    lengths = None if lengths is None else np.array(lengths, "int32")
    outputs, *last = [ops.convert_to_numpy(leaf) for leaf in tree.flatten(made(ops.convert_to_tensor(x), lengths))]
    assert relative_error(outputs, expected) < 2e-6
    for got, one, other in zip(last, forward, backward, strict=True):
        assert relative_error(got, np.concatenate([one, other], -1)) < 2e-6
        assert not any(lengths if lengths is not None else [1]) or relative_error(got, np.concatenate([other, one], -1)) > 1e-3


@kinds
def test_the_kernel_and_the_definition_have_the_same_gradients(kind):
    x, probe, initial = drawn(B, S, X), ops.convert_to_tensor(drawn(B, S, D, seed=3)), states(kind)
    lengths = ops.convert_to_tensor(np.array(LENGTHS["empty"], "int32"))
    found = []
    for fused in (True, False):
        made, weights = layer(kind, fused)
        run = getattr(backend, made.kernel_name) if fused else made.definition

        def loss(given, run=run):
            outputs, *last = run(given["x"], lengths, *given["states"], *given["weights"])
            return ops.sum(outputs * probe) + sum(ops.sum(state**2) for state in last)

        given = {
            "x": x,
            "states": list(initial),
            "weights": [weights[k].astype("float32") for k in ("kernel", "recurrent_kernel", "bias")],
        }
        given = tree.map_structure(ops.convert_to_tensor, given)
        _, gradients = backend.compiled(backend.value_and_grad(loss))(given)
        found.append([ops.convert_to_numpy(leaf) for leaf in tree.flatten(gradients)])
    assert any(np.abs(gradient).max() > 1e-2 for gradient in found[0])
    for native, defined in zip(*found, strict=True):
        assert relative_error(native, defined) < 1e-5


@kinds
def test_a_wrong_gate_order_or_a_missing_bias_is_seen(kind):
    made, weights = layer(kind)
    x, lengths = drawn(B, S, X), LENGTHS["padded"]
    got = numbers(made, x, lengths)[0]
    first, second, *rest = np.split(weights["kernel"], KINDS[kind][3], axis=-1)
    for faulty in (
        {**weights, "kernel": np.concatenate([second, first, *rest], axis=-1)},
        {**weights, "bias": np.zeros_like(weights["bias"])},
    ):
        assert relative_error(got, KINDS[kind][2](x, faulty, masks(lengths))[0]) > 1e-3


@kinds
def test_single_steps_equal_the_whole_sequence(kind):
    made, _ = layer(kind)
    x = drawn(B, S, X)
    expected, state = numbers(made, x, None)[0], made.start(B)
    for t in range(S):
        output, state = made.step(ops.convert_to_tensor(x[:, t]), state)
        assert relative_error(ops.convert_to_numpy(output), expected[:, t]) < 2e-6


@kinds
@paths
def test_values_at_padding_have_no_effect(kind, fused):
    made, _ = layer(kind, fused)
    x = drawn(B, S, X)
    spoiled = np.where(oracle.length_mask(LENGTHS["padded"], S)[:, :, None], x, 1e3).astype("float32")
    for clean, dirty in zip(numbers(made, x, [4, 1, 6]), numbers(made, spoiled, [4, 1, 6]), strict=True):
        np.testing.assert_array_equal(clean, dirty)
    assert np.abs(numbers(made, spoiled, None)[0] - numbers(made, x, None)[0]).max() > 1e-3


def test_reverse_rows_keeps_the_position_of_padding():
    x = np.arange(8).reshape(2, 4, 1)
    reversed_rows = ops.convert_to_numpy(reverse_rows(ops.convert_to_tensor(x), ops.convert_to_tensor([3, 0])))
    np.testing.assert_array_equal(reversed_rows[..., 0], [[2, 1, 0, 3], [4, 5, 6, 7]])


def test_rows_roll_from_left_to_right_padding_and_back():
    x, lengths = np.arange(8).reshape(2, 4, 1), np.array([3, 0], "int32")
    rolled = to_left(ops.convert_to_tensor(x), ops.convert_to_tensor(lengths))
    np.testing.assert_array_equal(ops.convert_to_numpy(rolled)[..., 0], [[1, 2, 3, 0], [4, 5, 6, 7]])
    back = to_right(rolled, ops.convert_to_tensor(lengths))
    np.testing.assert_array_equal(ops.convert_to_numpy(back), x)


@kinds
def test_explain_names_the_implementation(kind):
    kernel = backend.describe()["kernels"][KINDS[kind][0].kernel_name]
    assert "fused=False" in KINDS[kind][0](2, fused=False).explain()
    assert kernel in KINDS[kind][0](2).explain() and kernel in KINDS[kind][1](2).explain()


@kinds
def test_states_have_the_compute_dtype(kind):
    made = KINDS[kind][0](D, dtype="mixed_bfloat16")
    found = tree.flatten(made(ops.convert_to_tensor(drawn(2, 3, X)), np.array([2, 3], "int32")))
    assert {keras.backend.standardize_dtype(value.dtype) for value in found} == {"bfloat16"}
    assert keras.backend.standardize_dtype(made.kernel.dtype) == "float32"


@kinds
@pytest.mark.parametrize("both", [0, 1], ids=["one direction", "two directions"])
def test_saved_and_loaded_it_gives_the_same_output(kind, both, tmp_path):
    inputs, lengths = keras.Input((S, X)), keras.Input((), dtype="int32")
    outputs, _ = KINDS[kind][both](D, padding="left")(inputs, lengths)
    model = keras.Model([inputs, lengths], outputs)
    model.save(tmp_path / "model.keras")
    again = keras.saving.load_model(tmp_path / "model.keras")
    x, n = drawn(B, S, X), np.array([4, 1, 6], "int32")
    np.testing.assert_array_equal(ops.convert_to_numpy(model([x, n])), ops.convert_to_numpy(again([x, n])))
    assert again.layers[-1].padding == "left"
