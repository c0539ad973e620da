import keras
import numpy as np
import pytest
from keras import ops

from k3seq.inspect.trace import shape_trace
from k3seq.models.lstm import LSTMSeq2Seq

SEQ2SEQ_INPUTS = {
    "source": np.ones((2, 30), "int32"),
    "source_lengths": np.array([30, 7], "int32"),
    "target": np.ones((2, 20), "int32"),
}


def test_the_encoder_decoder_shows_what_enters_and_leaves_each_part(capsys):
    trace = {passage.path: passage for passage in shape_trace(LSTMSeq2Seq(), SEQ2SEQ_INPUTS)}
    tokens, state = ((2, 30), "int32"), ((2, 64), "float32")
    assert trace["encoder"].entered == [tokens, ((2,), "int32")]
    assert trace["encoder"].left == [((2, 30, 64), "float32"), state, state]
    assert trace["encoder/embedding"].left == [((2, 30, 50), "float32")]
    assert trace["decoder"].entered == [((2, 20), "int32"), state, state]
    assert trace["output"].left == [((2, 20, 500), "float32")]
    assert capsys.readouterr().out == ""  # the trace is returned, not printed


def test_a_line_shows_depth_path_class_and_shapes():
    model = keras.Sequential([keras.Input((3,)), keras.layers.Dense(2, name="dense")], name="model")
    lines = [str(passage) for passage in shape_trace(model, np.zeros((5, 3), "float32"))]
    assert lines[-1].endswith("dense (Dense): (5, 3) float32 -> (5, 2) float32")
    assert lines[-1].startswith("  ") and not lines[0].startswith(" ")


def test_a_shared_layer_is_reported_each_time():
    x = keras.Input((3,))
    dense = keras.layers.Dense(3, name="dense")
    trace = shape_trace(keras.Model(x, dense(dense(x))), np.zeros((1, 3), "float32"))
    assert [passage.path for passage in trace if passage.kind == "Dense"] == ["dense", "dense#2"]


def test_the_model_is_left_as_it_was():
    model = LSTMSeq2Seq(9, 9, 4, 4)
    before = ops.convert_to_numpy(model(SEQ2SEQ_INPUTS))
    shape_trace(model, SEQ2SEQ_INPUTS)
    assert not any("call" in vars(layer) for layer in model._flatten_layers())
    np.testing.assert_array_equal(ops.convert_to_numpy(model(SEQ2SEQ_INPUTS)), before)


class Broken(keras.layers.Layer):
    def call(self, x):
        raise RuntimeError("broken")


def test_an_error_passes_through_and_leaves_the_model_as_it_was():
    model = keras.Sequential([keras.layers.Dense(2), Broken()])
    with pytest.raises(RuntimeError, match="broken"):
        shape_trace(model, np.zeros((1, 2), "float32"))
    assert not any("call" in vars(layer) for layer in model._flatten_layers())
