"""The LSTM, GRU and attention oracles: against the golden vectors and Keras, by hand, each comparison seen to fail."""

import numpy as np
import pytest

import golden
from oracles import attention, differences, lstm, training

pytestmark = pytest.mark.once

FLOAT64 = 1e-10
FLOAT32 = 3e-6


def swapped(weights: dict, first: str, second: str) -> dict:
    return weights | {first: weights[second], second: weights[first]}


def as64(arrays: dict) -> dict:
    return {name: np.asarray(a, np.float64) for name, a in arrays.items()}


def golden_rnn(stored, mask):
    weights = as64(stored.group("w"))
    initial = [stored[f"in.init_{part}"] for part in "hc" if f"in.init_{part}" in stored]
    return attention.attention_rnn(stored["in.inputs"], stored["in.memory"], mask, weights, initial)


def memory_mask(stored):
    steps = stored["in.memory"].shape[1]
    if "in.memory_mask" in stored:
        return stored["in.memory_mask"].astype(bool)
    lengths = stored.arrays.get("in.memory_sequence_length", [steps] * len(stored["in.memory"]))
    return lstm.length_mask(lengths, steps)


def decoded(stored, weights, inputs, memory):
    """The logits of a `gradients` or `decoder_training` case."""
    initial = stored["in.init_h"], stored["in.init_c"]
    if memory is None:
        outputs = lstm.lstm(inputs, attention.under(weights, "cell"), initial=initial)[0]
    else:
        outputs = attention.attention_rnn(inputs, memory, memory_mask(stored), weights, initial)["attention"]
    return outputs @ weights["output_layer.kernel"] + weights["output_layer.bias"]


def test_lstm_equals_the_golden_decoder():
    stored = golden.case("decoder_training__lstm_lens")
    weights = as64(stored.group("w"))
    logits = decoded(stored, weights, stored["in.inputs"], None)
    longest = int(stored["in.sequence_length"].max())
    assert golden.relative_error(logits[:, :longest], stored["f64.rnn_output"]) < FLOAT64
    blocks = np.split(weights["cell.kernel"], 4, axis=1)
    wrong = weights | {"cell.kernel": np.concatenate([blocks[1], blocks[0], *blocks[2:]], axis=1)}
    wrong_logits = decoded(stored, wrong, stored["in.inputs"], None)
    assert golden.relative_error(wrong_logits[:, :longest], stored["f64.rnn_output"]) > 1e-3


@pytest.mark.parametrize("id", golden.cases("gradients"))
def test_differences_of_the_recurrent_oracles_equal_the_golden_gradients(id):
    stored = golden.case(id)
    arrays = as64(stored.group("w") | {part: stored[f"in.{part}"] for part in ("inputs", "memory") if f"in.{part}" in stored})
    keep = lstm.length_mask(stored["in.sequence_length"], stored["in.targets"].shape[1])
    wanted = stored["in.targets"]

    def loss(arrays):
        logits = decoded(stored, arrays, arrays["inputs"], arrays.get("memory"))
        return training.cross_entropy(logits, wanted[:, : logits.shape[1]], keep[:, : logits.shape[1]])

    assert loss(arrays) == pytest.approx(float(stored["f64.loss"]), rel=FLOAT64)
    for name, reference in stored.group("f64.grad").items():
        indices, derivatives = differences.sample(loss, arrays, name, 12)
        assert np.max(np.abs(derivatives - reference[indices])) < 1e-8 * max(1.0, np.abs(reference).max()), name
    reference = stored["f64.grad.cell.kernel"]
    indices, derivatives = differences.sample(loss, arrays, "cell.kernel", 12)
    assert np.max(np.abs(derivatives - np.roll(reference, 1, axis=1)[indices])) > 1e-4


def test_a_masked_step_carries_the_state_and_outputs_zero():
    rng = np.random.default_rng(0)
    x, mask = rng.normal(size=(3, 5, 2)), np.array([[0, 1, 0, 1, 1], [1, 1, 1, 0, 0], [0, 0, 0, 0, 0]], bool)
    for gates, cell in ((4, lstm.lstm), (3, lstm.gru)):
        weights = lstm.random_weights(rng, 2, 3, gates)
        initial = tuple(rng.normal(size=(3, 3)) for _ in range(2 if gates == 4 else 1))
        outputs, state = cell(x, weights, mask, initial)
        assert not outputs[~mask].any()
        dense, dense_state = cell(x[:1, [1, 3, 4]], weights, initial=tuple(s[:1] for s in initial))
        assert np.array_equal(outputs[:1, [1, 3, 4]], dense)
        for part, dense_part, start in zip(state, dense_state, initial, strict=True):
            assert np.array_equal(part[:1], dense_part)
            assert np.array_equal(part[2], start[2])
        unmasked, _ = cell(x, weights, initial=initial)
        assert not np.allclose(unmasked[:1, [1, 3, 4]], dense)


def test_the_reverse_direction_reads_real_tokens_backwards():
    rng = np.random.default_rng(1)
    forward, backward = (lstm.random_weights(rng, 2, 3) for _ in range(2))
    x = rng.normal(size=(1, 4, 2))
    outputs, _, state = lstm.bidirectional(x, forward, backward, lstm.length_mask([3], 4))
    flipped, flipped_state = lstm.lstm(x[:, [2, 1, 0]], backward)
    assert np.array_equal(outputs[:, :3, 3:], flipped[:, ::-1])
    assert np.array_equal(state[0], flipped_state[0])
    assert not outputs[:, 3].any()
    with_pad, _ = lstm.lstm(x[:, ::-1], backward)
    assert not np.allclose(outputs[:, :3, 3:], with_pad[:, ::-1][:, :3])


def test_an_lstm_step_by_hand():
    weights = {"kernel": np.array([[0.0, 0.0, 1.0, 0.0]]), "recurrent_kernel": np.zeros((1, 4)), "bias": np.zeros(4)}
    h, c = lstm.lstm_step(np.array([[2.0]]), np.array([[5.0]]), np.array([[4.0]]), weights)
    assert c.item() == pytest.approx(0.5 * 4 + 0.5 * np.tanh(2.0), abs=1e-15)
    assert h.item() == pytest.approx(0.5 * np.tanh(c.item()), abs=1e-15)


# Attention


@pytest.mark.parametrize(
    "id",
    golden.cases("attention_luong")
    + golden.cases("attention_bahdanau")
    + [one for one in golden.cases("attention_memory_mask") if "monotonic" not in one.id]
    + [pytest.param("attention_wrapper__gru_cell", id="gru_cell")],
)
def test_attention_rnn_equals_the_golden_vectors(id):
    stored = golden.case(id)
    mask = memory_mask(stored)
    results, shifted = golden_rnn(stored, mask), golden_rnn(stored, np.roll(mask, 1, axis=1))
    flat = golden_rnn(stored, np.zeros_like(mask))
    for name in ("attention", "alignments", "h"):
        reference = stored[f"f64.{name}"]
        assert golden.relative_error(results[name], reference) < FLOAT64, name
        if name != "alignments" or mask.shape[1] > 1:  # over one step of memory the weights are 1, whatever the scores
            assert golden.relative_error((flat if mask.all() else shifted)[name], reference) > 1e-4, name


def test_a_fully_masked_row_has_uniform_weights():
    scores, keep = np.array([[1.0, 2.0, 3.0, 4.0], [0.0, 0.0, 9.0, 0.0]]), np.array([[0, 0, 0, 0], [1, 1, 0, 0]], bool)
    weights = attention.softmax(scores, keep)
    assert weights.tolist() == [[0.25] * 4, [0.5, 0.5, 0.0, 0.0]]


def test_scores_by_hand():
    query, keys = np.array([[1.0, 2.0]]), np.array([[[3.0, 4.0], [0.0, -1.0]]])
    assert attention.luong_dot(query, keys, 0.5).tolist() == [[5.5, -1.0]]
    assert attention.luong_general(query, keys, np.array([[0.0, 1.0], [1.0, 0.0]])).tolist() == [[10.0, -1.0]]
    v = np.array([3.0, 4.0])
    plain = 3 * np.tanh(4.0) + 4 * np.tanh(6.0)
    assert attention.bahdanau(query, keys, v)[0, 0] == pytest.approx(plain, abs=1e-14)
    normalised = 10.0 / 5.0 * (3 * np.tanh(4.5) + 4 * np.tanh(6.5))
    assert attention.bahdanau(query, keys, v, 10.0, 0.5)[0, 0] == pytest.approx(normalised, abs=1e-14)


def test_layer_norm_by_hand():
    result = attention.layer_norm(np.array([1.0, 3.0]), np.array([2.0, 2.0]), np.array([0.5, 0.5]), 3.0)
    assert result.tolist() == [-0.5, 1.5]


def test_multi_head_attention_and_blocks_equal_keras():
    keras = pytest.importorskip("keras")
    rng = np.random.default_rng(2)
    weights = attention.random_block(rng, 6, 2, 8)
    x = rng.normal(size=(2, 5, 6))
    mask = attention.padding_mask([5, 3], 5) & attention.causal_mask(5)
    layer = keras.layers.MultiHeadAttention(2, 3)
    layer.build(x.shape, x.shape)
    own = attention.under(weights, "self")
    layer.set_weights([own[f"{part}.{kind}"] for part in ("query", "key", "value", "output") for kind in ("kernel", "bias")])
    theirs, scores = (
        keras.ops.convert_to_numpy(a)
        for a in layer(x.astype("float32"), x.astype("float32"), attention_mask=mask, return_attention_scores=True)
    )
    output, alignments = attention.multi_head(x, x, own, mask)
    assert golden.relative_error(theirs, output) < FLOAT32
    assert golden.relative_error(scores, alignments) < FLOAT32
    unmasked, _ = attention.multi_head(x, x, own)
    wrong, _ = attention.multi_head(x, x, swapped(own, "query.kernel", "key.kernel"), mask)
    assert min(golden.relative_error(theirs, other) for other in (unmasked, wrong)) > 1e-2


def test_an_encoder_block_joins_attention_keras_norms_and_dense_layers():
    keras = pytest.importorskip("keras")
    rng = np.random.default_rng(5)
    weights = attention.random_block(rng, 6, 2, 8)
    x, keep = rng.normal(size=(2, 5, 6)), attention.padding_mask([5, 3], 5)

    def norm(values, name):
        layer = keras.layers.LayerNormalization(epsilon=1e-3)
        layer.build(values.shape)
        layer.set_weights([weights[f"{name}.gamma"], weights[f"{name}.beta"]])
        return keras.ops.convert_to_numpy(layer(values.astype("float32"))).astype("float64")

    attended, _ = attention.multi_head(x, x, attention.under(weights, "self"), keep)
    y = norm(x + attended, "norm1")
    inner = np.maximum(y @ weights["dense1.kernel"] + weights["dense1.bias"], 0.0)
    theirs = norm(y + inner @ weights["dense2.kernel"] + weights["dense2.bias"], "norm2")
    assert golden.relative_error(theirs, attention.encoder_block(x, weights, keep)) < FLOAT32
    assert golden.relative_error(theirs, attention.encoder_block(x, weights, keep, epsilon=0.1)) > 1e-3
    wrong = swapped(weights, "norm1.gamma", "norm2.gamma")
    assert golden.relative_error(theirs, attention.encoder_block(x, wrong, keep)) > 1e-3


def test_a_decoder_block_sees_no_later_token_and_no_masked_memory():
    rng = np.random.default_rng(3)
    weights = attention.random_block(rng, 4, 2, 5, decoder=True)
    x, memory = rng.normal(size=(1, 4, 4)), rng.normal(size=(1, 3, 4))
    keep = attention.padding_mask([2], 3)
    result = attention.decoder_block(x, memory, weights, memory_mask=keep)
    later, unseen = x.copy(), memory.copy()
    later[:, 3] += 1.0
    unseen[:, 2] += 1.0
    changed = attention.decoder_block(later, unseen, weights, memory_mask=keep)
    assert np.allclose(changed[:, :3], result[:, :3], rtol=0, atol=1e-14)
    assert not np.allclose(changed[:, 3], result[:, 3])
    seen = attention.decoder_block(x, unseen, weights)
    assert not np.allclose(seen[:, :3], attention.decoder_block(x, memory, weights)[:, :3])
