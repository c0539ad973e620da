import keras
import numpy as np
import pytest
from keras import ops

from k3seq.errors import UsageError
from k3seq.layers.transformer import MultiHeadAttention, TransformerDecoder, TransformerEncoder
from oracles import attention as oracle

RNG = np.random.default_rng(0)
X = RNG.normal(size=(3, 6, 8)).astype("float32")
MEMORY = RNG.normal(size=(3, 5, 8)).astype("float32")
MEMORY_MASK = np.arange(5)[None] < np.array([[5], [3], [1]])
MASK = np.arange(6)[None] < np.array([[6], [4], [2]])


def numbers(x):
    return ops.convert_to_numpy(x)


def randomized(layer):
    """Biases and norms too: their usual zeros and ones would hide a missing one."""
    rng = np.random.default_rng(1)
    for weight in layer.weights:
        if "seed" not in weight.path:
            weight.assign(rng.normal(0.1, 0.5, weight.shape).astype("float32"))
    return layer


PARTS = {
    "attention": "self",
    "self_attention": "self",
    "cross_attention": "cross",
    "dense_inner": "dense1",
    "dense_outer": "dense2",
    "attention_norm/norm": "norm1",
    "self_norm/norm": "norm1",
    "cross_norm/norm": "norm2",
}


def oracle_weights(layer, last_norm):
    """The layer's weights in float64 by the oracle's names and head layout."""
    parts = {**PARTS, "dense_norm/norm": last_norm}
    heads, size, weights = layer.num_heads, layer.key_dim, {}
    for weight in layer.weights:
        _, *place, name = weight.path.split("/")
        value, part = numbers(weight).astype("float64"), "/".join(place)
        if part in parts:
            weights[f"{parts[part]}.{name}"] = value
        elif place[-1] == "output":
            weights[f"{parts[place[0]]}.output.{name}"] = value.reshape(heads, size, -1) if name == "kernel" else value
        else:
            weights[f"{parts[place[0]]}.{place[-1]}.{name}"] = value.reshape(*value.shape[:-1], heads, size)
    return weights


@pytest.mark.parametrize("key_dim", [None, 4])
def test_the_encoder_equals_its_definition(key_dim):
    layer = TransformerEncoder(8, 16, 2, key_dim=key_dim)
    layer.build(X.shape)
    randomized(layer)
    expected = oracle.encoder_block(X.astype("float64"), oracle_weights(layer, "norm2"), MASK[:, None])
    np.testing.assert_allclose(numbers(layer(X, mask=MASK)), expected, atol=1e-5)
    assert np.abs(numbers(layer(X)) - expected).max() > 1e-2  # unmasked is another function


def test_the_decoder_equals_its_definition():
    layer = TransformerDecoder(8, 16, 2)
    layer.build(X.shape, MEMORY.shape)
    randomized(layer)
    x, memory = X.astype("float64"), MEMORY.astype("float64")
    expected = oracle.decoder_block(x, memory, oracle_weights(layer, "norm3"), MASK[:, None], MEMORY_MASK[:, None])
    np.testing.assert_allclose(numbers(layer(X, MEMORY, mask=MASK, memory_mask=MEMORY_MASK)), expected, atol=1e-5)
    assert np.abs(numbers(layer(X, MEMORY, mask=MASK)) - expected).max() > 1e-2
    assert np.abs(numbers(layer(X, MEMORY, memory_mask=MEMORY_MASK)) - expected)[MASK].max() < 1e-5  # causality hides the pads


def test_attention_equals_keras_with_the_same_weights():
    ours, theirs = MultiHeadAttention(2, 4), keras.layers.MultiHeadAttention(2, 4)
    ours.build(X.shape, MEMORY.shape)
    theirs.build(X.shape, MEMORY.shape)
    randomized(ours)
    for mine, other in zip(ours.weights, theirs.weights, strict=True):
        other.assign(numbers(mine).reshape(other.shape))
    assert ours.count_params() == theirs.count_params()
    mask = np.repeat(MEMORY_MASK[:, None], 6, 1)
    expected = numbers(theirs(X, MEMORY, attention_mask=mask))
    np.testing.assert_allclose(numbers(ours(X, MEMORY, mask=mask)), expected, atol=2e-6)
    assert np.abs(numbers(ours(X, MEMORY)) - expected).max() > 1e-3


@pytest.mark.parametrize(("key_dim", "heads"), [(None, 2), (4, 2), (None, 1)])
def test_counts(key_dim, heads):
    d, f, k = 8, 16, key_dim or 8
    attention = 3 * (d + 1) * heads * k + (heads * k + 1) * d
    inner = (d + 1) * f + (f + 1) * d
    encoder, decoder = TransformerEncoder(d, f, heads, key_dim=key_dim), TransformerDecoder(d, f, heads, key_dim=key_dim)
    encoder.build((None, None, d))
    decoder.build((None, None, d), (None, None, d))
    assert encoder.count_params() == attention + inner + 2 * 2 * d
    assert decoder.count_params() == 2 * attention + inner + 3 * 2 * d


def test_padding_never_changes_a_real_position():
    layer = randomized_encoder()
    other = np.where(MASK[..., None], X, RNG.normal(size=X.shape).astype("float32") * 50)
    np.testing.assert_array_equal(numbers(layer(X, mask=MASK))[MASK], numbers(layer(other, mask=MASK))[MASK])
    assert np.abs(numbers(layer(X))[MASK] - numbers(layer(other))[MASK]).max() > 1e-2


def test_more_padding_changes_nothing():
    layer = randomized_encoder()
    longer = np.pad(X, ((0, 0), (0, 3), (0, 0)), constant_values=7.0)
    out = numbers(layer(longer, mask=np.pad(MASK, ((0, 0), (0, 3)))))[:, :6]
    np.testing.assert_allclose(out[MASK], numbers(layer(X, mask=MASK))[MASK], atol=2e-6)


def randomized_encoder():
    layer = TransformerEncoder(8, 16, 2)
    layer.build(X.shape)
    return randomized(layer)


def randomized_decoder():
    layer = TransformerDecoder(8, 16, 2, key_dim=4)
    layer.build(X.shape, MEMORY.shape)
    return randomized(layer)


def test_a_fully_masked_row_is_finite_and_does_not_change_other_rows():
    mask = MASK.copy()
    mask[1] = False
    layer = randomized_encoder()
    out = numbers(layer(X, mask=mask))
    assert np.isfinite(out).all()
    np.testing.assert_array_equal(out[[0, 2]], numbers(layer(X, mask=MASK))[[0, 2]])


def test_later_targets_never_change_earlier_outputs():
    layer = randomized_decoder()
    other = X.copy()
    other[:, 4:] += 9.0
    before, after = (numbers(layer(x, MEMORY, memory_mask=MEMORY_MASK)) for x in (X, other))
    np.testing.assert_array_equal(before[:, :4], after[:, :4])
    assert np.abs(before[:, 4:] - after[:, 4:]).max() > 1e-2


@pytest.mark.parametrize("masked", [True, False])
def test_steps_equal_the_whole_target(masked):
    layer = randomized_decoder()
    mask = ops.convert_to_tensor(MEMORY_MASK) if masked else None
    whole = numbers(layer(X, MEMORY, memory_mask=mask))
    cache = layer.start(ops.convert_to_tensor(MEMORY), mask, 8)
    shapes = {name: tuple(value.shape) for name, value in cache.items()}
    for t in range(6):
        y, cache = layer.step(ops.convert_to_tensor(X[:, t]), cache, ops.full((3,), t, dtype="int32"))
        np.testing.assert_allclose(numbers(y), whole[:, t], atol=2e-6)
    assert {name: tuple(value.shape) for name, value in cache.items()} == shapes
    empty = layer.start(ops.convert_to_tensor(MEMORY), mask, 8)
    wrong, _ = layer.step(ops.convert_to_tensor(X[:, 5]), empty, ops.full((3,), 5, dtype="int32"))
    assert np.abs(numbers(wrong) - whole[:, 5]).max() > 1e-3  # an empty cache is not good enough


def test_rows_may_be_at_different_positions():
    layer = randomized_decoder()
    memory, whole = ops.convert_to_tensor(MEMORY), numbers(layer(X, MEMORY))
    cache = layer.start(memory, None, 6)
    _, cache = layer.step(ops.convert_to_tensor(X[:, 0]), cache, ops.zeros((3,), dtype="int32"))
    # Row 0 takes its first step again, the others go on.
    x = np.stack([X[0, 0], X[1, 1], X[2, 1]])
    y, _ = layer.step(ops.convert_to_tensor(x), cache, ops.convert_to_tensor(np.array([0, 1, 1], "int32")))
    np.testing.assert_allclose(numbers(y), np.stack([whole[0, 0], whole[1, 1], whole[2, 1]]), atol=2e-6)


def test_dropout_acts_in_training_only():
    layer = TransformerEncoder(8, 16, 2, dropout=0.5)
    still = numbers(layer(X, training=False))
    np.testing.assert_array_equal(numbers(layer(X, training=False)), still)
    assert np.abs(numbers(layer(X, training=True)) - still).max() > 1e-2
    plain = TransformerEncoder(8, 16, 2)
    plain.build(X.shape)
    assert len(plain.variables) == 16  # no seed rides along when nothing is dropped


def test_no_mask_is_attached_to_the_output():
    assert getattr(randomized_encoder()(X, mask=ops.convert_to_tensor(MASK)), "_keras_mask", None) is None


def test_blocks_in_a_graph_are_saved_and_loaded(tmp_path):
    x, memory, keep = keras.Input((None, 8)), keras.Input((None, 8)), keras.Input((None,), dtype="bool")
    encoded = TransformerEncoder(8, 16, 2, dropout=0.1, name="encoder")(memory, mask=keep)
    decoded = TransformerDecoder(8, 16, 2, key_dim=4, name="decoder")(x, encoded, memory_mask=keep)
    model = randomized(keras.Model([x, memory, keep], decoded))
    model.save(tmp_path / "m.keras")
    loaded = keras.saving.load_model(tmp_path / "m.keras")
    inputs = [X, MEMORY, MEMORY_MASK]
    np.testing.assert_array_equal(numbers(loaded(inputs)), numbers(model(inputs)))
    assert [w.path for w in loaded.weights] == [w.path for w in model.weights]
    assert loaded.count_params() > 0 and "decoder/self_attention/query/kernel" in [w.path for w in loaded.weights]


@pytest.mark.parametrize("policy", ["mixed_bfloat16", "mixed_float16"])
def test_low_precision_is_close_to_float32(policy):
    layer = randomized_decoder()
    low = TransformerDecoder(8, 16, 2, key_dim=4, dtype=policy)
    low.build(X.shape, MEMORY.shape)
    low.set_weights(layer.get_weights())
    out = low(X, MEMORY, memory_mask=MEMORY_MASK)
    assert keras.backend.standardize_dtype(out.dtype) == policy.removeprefix("mixed_")
    expected = numbers(layer(X, MEMORY, memory_mask=MEMORY_MASK))
    np.testing.assert_allclose(numbers(ops.cast(out, "float32")), expected, atol=0.15 if policy == "mixed_bfloat16" else 0.03)


def test_inputs_of_another_size_are_refused():
    with pytest.raises(UsageError, match="Expected inputs of size embed_dim=8"):
        TransformerEncoder(8, 4, 2)(np.zeros((1, 2, 6), "float32"))
