"""Frames: the worked example, the golden vectors, and what becomes of the context."""

import json
from pathlib import Path

import keras
import numpy as np
import pytest
from keras import ops

from k3seq.errors import UsageError
from k3seq.layers.sliding.frames import Frames
from k3seq.layers.sliding.ragged import pack_rows, to_dense

GOLDEN = Path(__file__).resolve().parents[1] / "golden_vectors"

EXAMPLE = [
    {
        "rows": ([[3, 4], [5, 6, 7]], [[0, 2], [9]], [[8, 2], [9]]),
        "enc": [[0, 0, 0, 3, 4], [0, 0, 5, 6, 7]],
        "enc_len": [2, 3],
        "dec": [[0, 2, 0, 0], [9, 0, 0, 0]],
        "dec_len": [2, 1],
        "prev": [[0, 3, 4, 8, 2], [0, 5, 6, 7, 9]],
    },
    {
        "rows": ([[11], [12, 13]], [[0, 0, 2], [14, 2]], [[15, 16, 2], [14, 2]]),
        "enc": [[3, 4, 8, 2, 11], [6, 7, 9, 12, 13]],
        "enc_len": [1, 2],
        "dec": [[0, 0, 2, 0], [14, 2, 0, 0]],
        "dec_len": [3, 2],
        "prev": [[2, 11, 15, 16, 2], [9, 12, 13, 14, 2]],
    },
]


def pairs_of(arrays, width_enc, width_dec):
    """Dense pairs of six arrays, as `Frames` takes them."""
    forms = ((width_enc, "last"), (width_dec, "first"), (width_enc, "last"))
    return [to_dense(*arrays[2 * i : 2 * i + 2], width, keep) for i, (width, keep) in enumerate(forms)]


def dense_pairs(rows, width_enc, width_dec):
    return pairs_of([array for field in rows for array in pack_rows(field)], width_enc, width_dec)


def run(layer, rows):
    outputs = layer(*dense_pairs(rows, layer.width_enc, layer.width_dec))
    return [ops.convert_to_numpy(output).tolist() for output in (*outputs, layer.prev)]


def expected(call):
    return [call[name] for name in ("enc", "enc_len", "dec", "dec_len", "prev")]


def test_the_worked_example_of_the_definition():
    layer = Frames(5, 4, 2)
    for call in EXAMPLE:
        assert run(layer, call["rows"]) == expected(call)


def test_another_token_or_an_empty_context_changes_the_result():
    layer = Frames(5, 4, 2)
    assert run(layer, EXAMPLE[1]["rows"]) != expected(EXAMPLE[1])
    layer.reset()
    enc, dec, tgt = EXAMPLE[0]["rows"]
    assert run(layer, ([[3, 5], enc[1]], dec, tgt)) != expected(EXAMPLE[0])


def test_reset_clears_the_context():
    layer = Frames(5, 4, 2)
    first = run(layer, EXAMPLE[0]["rows"])
    layer.reset()
    assert run(layer, EXAMPLE[0]["rows"]) == first


@pytest.mark.parametrize("width", [3, 9])
def test_empty_rows_and_rows_longer_than_the_window(width):
    rng = np.random.default_rng(width)
    layer = Frames(width, 4, 3)
    prev = [[0] * width] * 3
    for enc_lengths, tgt_lengths in [
        ((0, 2, 30), (0, 0, 1)),
        ((12, 0, 0), (3, 30, 0)),
        ((0, 0, 0), (0, 0, 0)),
        ((3, 9, 4), (9, 3, 8)),
    ]:
        enc, tgt = ([rng.integers(3, 20, n).tolist() for n in lengths] for lengths in (enc_lengths, tgt_lengths))
        dec = [row[:4] for row in tgt]
        window = [(old + row)[-width:] for old, row in zip(prev, enc, strict=True)]
        prev = [(seen + row)[-width:] for seen, row in zip(window, tgt, strict=True)]
        found = run(layer, (enc, dec, tgt))
        assert found[0] == window
        assert found[1] == list(enc_lengths)
        assert found[4] == prev


def test_padding_does_not_enter_the_context():
    layer, clean = Frames(5, 4, 2), Frames(5, 4, 2)
    pairs = dense_pairs(EXAMPLE[0]["rows"], 5, 4)
    dirty = [
        (ops.where(tokens == 0, 17, tokens) if name != "dec" else tokens, lengths)
        for name, (tokens, lengths) in zip(("enc", "dec", "tgt"), pairs, strict=True)
    ]
    wide = (ops.concatenate([pairs[1][0], ops.full((2, 3), 17, dtype="int32")], axis=1), pairs[1][1])
    layer(dirty[0], wide, dirty[2])
    clean(*pairs)
    assert ops.convert_to_numpy(layer.prev).tolist() == ops.convert_to_numpy(clean.prev).tolist()
    assert ops.convert_to_numpy(layer.prev).tolist() == EXAMPLE[0]["prev"]


@pytest.mark.parametrize("rows", [1, 3])
def test_a_batch_of_another_size_is_refused_and_keeps_the_context(rows):
    layer = Frames(5, 4, 2)
    run(layer, EXAMPLE[0]["rows"])
    with pytest.raises(UsageError, match=rf"Expected enc of batch_size=2 rows. Received: {rows} rows"):
        run(layer, ([[3]] * rows, [[2]] * rows, [[2]] * rows))
    assert ops.convert_to_numpy(layer.prev).tolist() == EXAMPLE[0]["prev"]


def test_the_context_is_saved_and_loaded(tmp_path):
    class Model(keras.Model):
        def __init__(self):
            super().__init__()
            self.frames = Frames(5, 4, 2)

        def call(self, x):
            return self.frames(*x)[0]

    model = Model()
    model(dense_pairs(EXAMPLE[0]["rows"], 5, 4))
    model.save_weights(tmp_path / "frames.weights.h5")
    other = Model()
    other(dense_pairs(EXAMPLE[1]["rows"], 5, 4))
    other.load_weights(tmp_path / "frames.weights.h5")
    assert ops.convert_to_numpy(other.frames.prev).tolist() == EXAMPLE[0]["prev"]
    assert other.count_params() == 10 and not other.trainable_variables


def test_shapes_of_symbolic_inputs_are_known():
    inputs = [(keras.Input(batch_shape=(2, 7), dtype="int32"), keras.Input(batch_shape=(2,), dtype="int32")) for _ in range(3)]
    assert [output.shape for output in Frames(5, 4, 2)(*inputs)] == [(2, 5), (2,), (2, 4), (2,)]
    with pytest.raises(UsageError, match="Expected enc of batch_size=3 rows"):
        Frames(5, 4, 3)(*inputs)


@pytest.mark.parametrize("case", ["hand", "random", "long"])
def test_successive_calls_equal_the_golden_vectors(case):
    golden = np.load(GOLDEN / "cases" / f"sliding_frames__{case}.npz")
    [params] = [
        entry["params"]
        for entry in json.loads((GOLDEN / "index.json").read_text())["cases"]
        if entry["id"] == f"sliding_frames__{case}"
    ]
    layer = Frames(params["width_enc"], params["width_dec"], params["batch"])
    for call in range(params["calls"]):
        arrays = [golden[f"in.{call}.{field}.{part}"] for field in ("enc", "dec", "tgt") for part in ("values", "row_splits")]
        outputs = layer(*pairs_of(arrays, layer.width_enc, layer.width_dec))
        for name, found in zip(("enc", "enc_len", "dec", "dec_len", "prev_after"), (*outputs, layer.prev), strict=True):
            np.testing.assert_array_equal(
                ops.convert_to_numpy(found), golden[f"f32.{call}.{name}"], err_msg=f"call {call}, {name}"
            )
