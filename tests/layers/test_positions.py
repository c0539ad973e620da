import math

import keras
import numpy as np
import pytest
from keras import ops

from k3seq.errors import UsageError
from k3seq.layers.positions import PositionEmbedding, SinusoidalPositions, sinusoid


@pytest.mark.parametrize("units", [4, 5])
def test_sinusoids_interleave_sine_and_cosine_of_geometric_wavelengths(units):
    table = sinusoid(7, units)
    for p in range(7):
        for i in range(units):
            angle = p / 10000 ** (2 * (i // 2) / units)
            assert table[p, i] == pytest.approx(math.sin(angle) if i % 2 == 0 else math.cos(angle), abs=1e-7)


def test_the_shared_table_is_read_only():
    with pytest.raises(ValueError, match="read-only"):
        sinusoid(3, 4)[0, 0] = 1.0


@pytest.mark.parametrize("layer", [SinusoidalPositions, PositionEmbedding])
def test_an_offset_moves_each_row_to_its_own_position(layer):
    positions = layer(9)
    x = np.zeros((2, 3, 4), "float32")
    whole = ops.convert_to_numpy(positions(np.zeros((1, 9, 4), "float32")))[0]
    moved = ops.convert_to_numpy(positions(x, offset=np.array([2, 6], "int32")))
    np.testing.assert_array_equal(moved, np.stack([whole[2:5], whole[6:9]]))
    assert np.abs(ops.convert_to_numpy(positions(x)) - moved).max() > 1e-3


def test_only_learned_positions_have_weights():
    fixed, learned = SinusoidalPositions(9), PositionEmbedding(9)
    fixed.build((None, None, 4))
    learned.build((None, None, 4))
    assert (fixed.count_params(), learned.count_params()) == (0, 36)


@pytest.mark.parametrize("layer", [SinusoidalPositions, PositionEmbedding])
def test_more_steps_than_positions_are_refused(layer):
    with pytest.raises(UsageError, match="at most max_steps=2"):
        layer(2)(np.zeros((1, 3, 4), "float32"))


@pytest.mark.parametrize("layer", [SinusoidalPositions, PositionEmbedding])
def test_positions_in_a_graph_are_saved_and_loaded(layer, tmp_path):
    inputs = keras.Input((None, 4))
    model = keras.Model(inputs, layer(6)(inputs))
    assert model.output.shape == (None, None, 4)
    model.save(tmp_path / "m.keras")
    x = np.ones((2, 6, 4), "float32")
    loaded = keras.saving.load_model(tmp_path / "m.keras")
    np.testing.assert_array_equal(ops.convert_to_numpy(loaded(x)), ops.convert_to_numpy(model(x)))
