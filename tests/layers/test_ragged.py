"""Ragged rows as pairs and as dense tokens."""

import keras
import numpy as np
import pytest
from keras import ops

from k3seq.errors import UsageError
from k3seq.layers.sliding.ragged import ToDense, pack_rows, pad_rows, to_dense, unpack_rows

ROWS = [[3, 4], [], [5, 6, 7, 8]]


def as_lists(tokens, lengths):
    return ops.convert_to_numpy(tokens).tolist(), ops.convert_to_numpy(lengths).tolist()


def test_packed_rows_are_values_and_row_splits():
    values, row_splits = pack_rows(ROWS)
    assert values.tolist() == [3, 4, 5, 6, 7, 8]
    assert row_splits.tolist() == [0, 2, 2, 6]


def test_unpacking_gives_the_rows_that_were_packed():
    assert [row.tolist() for row in unpack_rows(*pack_rows(ROWS))] == ROWS
    assert unpack_rows(*pack_rows([])) == []


@pytest.mark.parametrize("row_splits", [[1, 2], [0, 2, 1], [0, 9], [[0, 1]], []])
def test_invalid_splits_are_refused(row_splits):
    with pytest.raises(UsageError, match="Expected .* Received"):
        unpack_rows([1, 2, 3], row_splits)


def test_padding_refuses_a_row_longer_than_the_width():
    tokens, lengths = pad_rows(ROWS, 4)
    assert tokens.tolist() == [[3, 4, 0, 0], [0, 0, 0, 0], [5, 6, 7, 8]]
    assert lengths.tolist() == [2, 0, 4]
    with pytest.raises(UsageError, match="Expected each dec row to have at most 3 tokens. Received: dec row 2 with 4 tokens"):
        pad_rows(ROWS, 3, "dec row")


@pytest.mark.parametrize(
    "width, keep, tokens",
    [
        (5, "first", [[3, 4, 0, 0, 0], [0, 0, 0, 0, 0], [5, 6, 7, 8, 0]]),
        (5, "last", [[3, 4, 0, 0, 0], [0, 0, 0, 0, 0], [5, 6, 7, 8, 0]]),
        (3, "first", [[3, 4, 0], [0, 0, 0], [5, 6, 7]]),
        (3, "last", [[3, 4, 0], [0, 0, 0], [6, 7, 8]]),
        (1, "last", [[4], [0], [8]]),
    ],
)
def test_dense_rows_keep_the_chosen_side_and_their_whole_lengths(width, keep, tokens):
    assert as_lists(*ToDense(width, keep)(*pack_rows(ROWS))) == (tokens, [2, 0, 4])


def test_rows_that_are_all_empty_become_blanks():
    assert as_lists(*to_dense(*pack_rows([[], []]), 2)) == ([[0, 0], [0, 0]], [0, 0])


def test_values_after_the_last_split_belong_to_no_row():
    assert as_lists(*to_dense(np.array([3, 9, 9], "int32"), np.array([0, 1, 1]), 3)) == ([[3, 0, 0], [0, 0, 0]], [1, 0])


def test_a_jitted_model_makes_dense_rows_of_any_batch():
    class Model(keras.Model):
        def __init__(self):
            super().__init__()
            self.dense = ToDense(3, "last")

        def call(self, x):
            tokens, lengths = self.dense(*x)
            return ops.concatenate([tokens, lengths[:, None]], axis=1)

    model = Model()
    model.compile(jit_compile=keras.backend.backend() != "torch")
    pair = pack_rows([[1, 2], [], [3, 4, 5, 6]])
    assert model.predict_on_batch(pair).tolist() == [[1, 2, 0, 2], [0, 0, 0, 0], [4, 5, 6, 4]]


def test_the_layer_comes_back_from_its_config():
    layer = ToDense.from_config(ToDense(7, "last").get_config())
    assert (layer.width, layer.keep) == (7, "last")
    tokens, lengths = layer(keras.Input((), dtype="int32"), keras.Input(batch_shape=(4,), dtype="int64"))
    assert (tokens.shape, lengths.shape) == ((3, 7), (3,))


@pytest.mark.parametrize("arguments", [{"width": 0}, {"width": 3, "keep": "middle"}])
def test_a_bad_width_or_side_is_refused(arguments):
    with pytest.raises(UsageError, match="Expected .* Received"):
        ToDense(**arguments)
