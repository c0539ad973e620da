"""The layers of the sliding-context model against the definition's cuts in NumPy."""

import keras
import numpy as np
import pytest
from keras import ops

from k3seq.layers.sliding.blocks import (
    Attention,
    Conclusion,
    Debed,
    Decode,
    Decoder,
    Embed,
    Encode,
    Encoder,
    attend,
    cut,
    last_positions,
)

BATCH, WIDTH, UNITS, DENSE, OTHER = 3, 7, 4, 5, 6


def arrays(seed, *shapes):
    rng = np.random.default_rng(seed)
    return [rng.normal(size=shape).astype("float32") for shape in shapes]


def softmax(scores):
    weights = np.exp(scores - scores.max(-1, keepdims=True))
    return weights / weights.sum(-1, keepdims=True)


def by_cuts(x, lengths, context, q, k, v):
    """Attention as the definition writes it: the last max(lengths) positions, by slices with a negative start."""
    off = max(lengths)
    weights = softmax((x[:, -off:] @ q) @ (context @ k).transpose(0, 2, 1) / x.shape[-1] ** 0.5)
    return np.concatenate([x[:, :-off], weights @ (context @ v)], axis=1)


@pytest.mark.parametrize("lengths", [[1, 3, 2], [7, 1, 1], [0, 0, 0], [2, 12, 0]])
def test_attention_equals_the_definition_with_slices(lengths):
    x, context, *weights = arrays(1, (BATCH, WIDTH, UNITS), (BATCH, OTHER, UNITS), *[(UNITS, UNITS)] * 3)
    layer = Attention(UNITS)
    layer.build()
    for variable, weight in zip((layer.q, layer.k, layer.v), weights, strict=True):
        variable.assign(weight)
    queries = last_positions(np.array(lengths, "int32"), WIDTH)
    found = ops.convert_to_numpy(layer(x, context, queries))
    np.testing.assert_allclose(found, by_cuts(x, lengths, context, *weights), rtol=0, atol=1e-5)
    # One position more or less, or another context, is seen.
    fewer = by_cuts(x, [max(lengths) % WIDTH + 1], context, *weights)
    assert np.abs(found - fewer).max() > 1e-2
    assert np.abs(found - by_cuts(x, lengths, context[:, :-1], *weights)).max() > 1e-2


def test_masked_context_has_no_effect():
    x, context, *weights = arrays(2, (BATCH, WIDTH, UNITS), (BATCH, OTHER, UNITS), *[(UNITS, UNITS)] * 3)
    queries, mask = np.ones((1, WIDTH), "bool"), np.arange(OTHER)[None, :] < np.array([4, 4, 4])[:, None]
    found = ops.convert_to_numpy(attend(*map(ops.convert_to_tensor, (x, context, *weights, queries, mask))))
    np.testing.assert_allclose(found, by_cuts(x, [WIDTH], context[:, :4], *weights), rtol=0, atol=1e-5)
    nothing = ops.convert_to_numpy(attend(*map(ops.convert_to_tensor, (x, context, *weights, queries, mask & False))))
    assert (nothing == 0).all()


def test_conclusion_sees_the_whole_window():
    [x] = arrays(3, (BATCH, WIDTH, UNITS))
    layer = Conclusion(WIDTH, UNITS, DENSE)
    layer.build()
    layer.inflate.bias.assign(arrays(4, (DENSE,))[0])
    inflate, bias, deflate = (ops.convert_to_numpy(weight) for weight in layer.weights)
    expected = np.maximum(x.reshape(BATCH, -1) @ inflate + bias, 0) @ deflate
    found = ops.convert_to_numpy(layer(x))
    np.testing.assert_allclose(found, expected.reshape(x.shape), rtol=0, atol=1e-5)
    assert np.abs(found - (x.reshape(BATCH, -1) @ inflate @ deflate).reshape(x.shape)).max() > 1e-2


def test_embeddings_are_scaled_by_the_root_of_embed_dim():
    layer = Embed(9, UNITS)
    tokens = np.array([[0, 8, 3]], "int32")
    found = ops.convert_to_numpy(layer(tokens))
    np.testing.assert_allclose(found, ops.convert_to_numpy(layer.embeddings)[tokens] * 2, rtol=1e-6)


def test_logits_keep_the_width_and_cut_keeps_the_longest_row():
    [x] = arrays(5, (BATCH, WIDTH, UNITS))
    layer = Debed(9, UNITS)
    logits, mask = layer(x, np.array([2, 4, 0], "int32"))
    assert tuple(logits.shape) == (BATCH, WIDTH, 9)
    assert ops.convert_to_numpy(mask).tolist() == [[True] * 4 + [False] * 3] * BATCH
    np.testing.assert_array_equal(cut(logits, mask), ops.convert_to_numpy(logits)[:, :4])
    assert cut(*layer(x, np.zeros(BATCH, "int32"))).shape == (BATCH, 0, 9)


@pytest.mark.parametrize(
    "layer, count",
    [
        (Embed(20, 6), 120),
        (Attention(6), 108),
        (Conclusion(25, 6, 150), 45_150),
        (Encoder(25, 6, 150), 45_258),
        (Decoder(15, 6, 150), 27_366),
        (Encode(25, 6, 150, 2), 90_516),
        (Decode(15, 6, 150, 2), 54_732),
        (Debed(20, 6), 140),
    ],
    ids=lambda value: type(value).__name__,
)
def test_layers_have_the_weights_of_the_source_and_come_back_from_their_config(layer, count):
    layer.build()
    again = keras.saving.deserialize_keras_object(keras.saving.serialize_keras_object(layer))
    if not again.built:
        again.build()
    assert layer.count_params() == again.count_params() == count
    assert [weight.path for weight in layer.weights] == [weight.path for weight in again.weights]
    assert again.get_config() == layer.get_config()


def test_a_decoder_reflects_then_considers_then_concludes():
    x, context = arrays(6, (BATCH, WIDTH, UNITS), (BATCH, OTHER, UNITS))
    queries = last_positions(np.array([3, 1, 0], "int32"), WIDTH)
    layer = Decoder(WIDTH, UNITS, DENSE)
    found = ops.convert_to_numpy(layer(x, context, queries))
    y = layer.consider(layer.reflect(x, x, queries), context, queries)
    np.testing.assert_allclose(found, ops.convert_to_numpy(layer.conclude(y)), rtol=0, atol=1e-6)
    wrong = layer.reflect(layer.consider(x, context, queries), x, queries)
    assert np.abs(found - ops.convert_to_numpy(layer.conclude(wrong))).max() > 1e-4
