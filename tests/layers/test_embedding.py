import keras
import numpy as np
import pytest
from keras import ops

from k3seq.layers.embedding import TokenEmbedding
from k3seq.layers.positions import sinusoid

TOKENS = np.array([[3, 0, 2], [1, 1, 4]], "int32")


def test_vectors_are_scaled_before_positions_are_added():
    layer = TokenEmbedding(5, 4, positions="sinusoidal", max_steps=3, scale=True)
    out = ops.convert_to_numpy(layer(TOKENS))
    table = ops.convert_to_numpy(layer.embeddings)
    np.testing.assert_allclose(out, table[TOKENS] * 2.0 + sinusoid(3, 4), atol=1e-6)
    assert np.abs(out - (table[TOKENS] + sinusoid(3, 4)) * 2.0).max() > 0.1  # the order of the two matters


@pytest.mark.parametrize(("positions", "count"), [(None, 20), ("sinusoidal", 20), ("learned", 32)])
def test_only_learned_positions_add_weights(positions, count, tmp_path):
    inputs = keras.Input((3,), dtype="int32")
    layer = TokenEmbedding(5, 4, positions=positions, max_steps=positions and 3)
    model = keras.Model(inputs, layer(inputs))
    assert model.count_params() == count
    model.save(tmp_path / "m.keras")
    loaded = keras.saving.load_model(tmp_path / "m.keras")
    np.testing.assert_array_equal(ops.convert_to_numpy(loaded(TOKENS)), ops.convert_to_numpy(model(TOKENS)))
    assert [w.path for w in loaded.weights] == [w.path for w in model.weights]


@pytest.mark.parametrize("positions", ["sinusoidal", "learned"])
def test_a_token_at_an_offset_equals_that_position_of_the_row(positions):
    layer = TokenEmbedding(5, 4, positions=positions, max_steps=3)
    whole = ops.convert_to_numpy(layer(TOKENS))
    for t in range(3):
        one = ops.convert_to_numpy(layer(TOKENS[:, t : t + 1], offset=np.full(2, t, "int32")))
        np.testing.assert_array_equal(one[:, 0], whole[:, t])
    assert np.abs(ops.convert_to_numpy(layer(TOKENS[:, 1:2]))[:, 0] - whole[:, 1]).max() > 1e-3
