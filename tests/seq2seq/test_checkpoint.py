"""Weights of a TensorFlow Addons model, by the names that tf.keras 2.15 prints, in a k3seq model that then gives itsresults."""

import keras
import numpy as np
import pytest
from keras import layers, ops

import golden
from k3seq import backend
from k3seq.errors import DataError, UsageError
from k3seq.seq2seq.attention_wrapper import AttentionWrapper, BahdanauAttention, LuongAttention
from k3seq.seq2seq.basic_decoder import BasicDecoder
from k3seq.seq2seq.beam_search_decoder import BeamSearchDecoder, tile_batch
from k3seq.seq2seq.checkpoint import load_tfa_weights
from k3seq.seq2seq.sampler import GreedyEmbeddingSampler

BEAMS, GREEDY = "beam_attention__w3_lp1.0_cp0", "decoder_greedy__luong_mixed_impute"


class Translator(keras.Model):
    """The attention pattern of TFA's readme: an encoder of embedding and LSTM, a decoder around an attention wrapper."""

    def __init__(self, params, mechanism):
        super().__init__(name="translator")
        units, vocabulary, depth = params["cell_units"], params["vocab"], params["embed_depth"]
        memory_depth = params["memory"][1]
        self.encoder_embedding = layers.Embedding(vocabulary, depth, "zeros", name="encoder_embedding")
        # All weights are loaded: JAX need not compile the drawing of others.
        zeros = dict(kernel_initializer="zeros", recurrent_initializer="zeros")
        self.encoder = layers.LSTM(memory_depth, return_sequences=True, return_state=True, name="encoder", **zeros)
        self.embedding = layers.Embedding(vocabulary, depth, "zeros", name="decoder_embedding")
        self.mechanism = mechanism
        self.cell = AttentionWrapper(layers.LSTMCell(units, **zeros), mechanism, params["attention_layer_size"])
        self.dense = layers.Dense(vocabulary, kernel_initializer="zeros", name="logits")
        for layer, shape in ((self.encoder_embedding, (None, None)), (self.encoder, (None, None, depth))):
            layer.build(shape)
        mechanism.build((None, None, memory_depth))
        self.embedding.build((None, None))
        self.cell.build((None, depth))
        self.dense.build((None, self.cell.output_size))
        self.built = True

    def start(self, case, width=1):
        """The state of the cell before the first step: the case's memory and cell state, once for each beam."""
        memory, lengths, *state = (
            tile_batch(ops.convert_to_tensor(case[f"in.{name}"]), width)
            for name in ("memory", "memory_sequence_length", "init_h", "init_c")
        )
        self.mechanism.setup_memory(memory, memory_sequence_length=lengths)
        return self.cell.get_initial_state(batch_size=memory.shape[0]).clone(cell_state=state)


def tfa_weights(case, mechanism):
    """The case's weights by the names they have there, with an encoder of made-up ones."""
    scope = "decoder/basic_decoder/decoder"
    names = {
        "embedding": "decoder/embedding_1/embeddings:0",
        "output_layer.kernel": f"{scope}/dense/kernel:0",
        "output_layer.bias": f"{scope}/dense/bias:0",
        "attention_layer.kernel": f"{scope}/attention_wrapper/attention_layer/kernel:0",
        "cell.kernel": f"{scope}/attention_wrapper/lstm_cell_1/kernel:0",
        "cell.recurrent_kernel": f"{scope}/attention_wrapper/lstm_cell_1/recurrent_kernel:0",
        "cell.bias": f"{scope}/attention_wrapper/lstm_cell_1/bias:0",
        "attn.memory_layer.kernel": f"{mechanism}/memory_layer/kernel:0",
        "attn.query_layer.kernel": f"{scope}/attention_wrapper/{mechanism}/query_layer/kernel:0",
        "attn.attention_v": f"{mechanism}/attention_v:0",
        "attn.attention_g": f"{mechanism}/attention_g:0",
        "attn.attention_b": f"{mechanism}/attention_b:0",
    }
    given = case.group("w")
    memory, depth = case.params["memory"][1], case.params["embed_depth"]
    draw = np.random.default_rng(0)
    encoder = {
        "encoder/embedding/embeddings:0": draw.normal(size=(case.params["vocab"], depth)),
        "encoder/lstm/lstm_cell/kernel:0": draw.normal(size=(depth, 4 * memory)),
        "encoder/lstm/lstm_cell/recurrent_kernel:0": draw.normal(size=(memory, 4 * memory)),
        "encoder/lstm/lstm_cell/bias:0": draw.normal(size=(4 * memory,)),
    }
    return encoder | {name: given[role] for role, name in names.items() if role in given}


def bahdanau():
    """A model for the beam search case, and that case's weights."""
    case = golden.case(BEAMS)
    depth = case["w.attn.attention_v"].shape[0]
    model = Translator(case.params, BahdanauAttention(depth, normalize=True))
    return model, case, tfa_weights(case, "BahdanauAttention")


@pytest.fixture(scope="module")
def loaded():
    model, case, weights = bahdanau()
    return model, case, weights, load_tfa_weights(model, weights)


def value(model, path):
    return next(ops.convert_to_numpy(v.value) for v in model.weights if v.path == path)


def test_every_weight_goes_to_its_role(loaded):
    model, _, weights, placed = loaded
    assert set(placed) == set(weights) and sorted(placed.values()) == sorted(v.path for v in model.weights)
    for name, path in placed.items():
        np.testing.assert_array_equal(value(model, path), weights[name].astype("float32"))
    assert placed["encoder/embedding/embeddings:0"].startswith("encoder_embedding/")
    assert placed["decoder/embedding_1/embeddings:0"].startswith("decoder_embedding/")


def test_a_loaded_model_finds_the_beams_of_the_reference(loaded, tolerance):
    model, case, weights, _ = loaded
    p = case.params
    decoder = BeamSearchDecoder(
        model.cell,
        p["beam_width"],
        embedding_fn=model.embedding,
        output_layer=model.dense,
        length_penalty_weight=p["length_penalty_weight"],
        maximum_iterations=p["maximum_iterations"],
    )

    def search(start_tokens):
        state = model.start(case, p["beam_width"])
        outputs, state, _ = decoder(None, start_tokens=start_tokens, end_token=p["end_token"], initial_state=state)
        return outputs.predicted_ids, state.log_probs

    compiled = backend.compiled(search, model.variables)

    def found():
        return [ops.convert_to_numpy(result) for result in compiled(case["in.start_tokens"])]

    ids, scores = found()
    steps = p["steps_run"]  # a compiled search goes on to the limit
    np.testing.assert_array_equal(ids[:, :steps], case["f32.predicted_ids"])
    assert golden.relative_error(scores, case["f32.final.log_probs"]) < 1e-5
    # The control: a weight in the wrong place is seen.
    load_tfa_weights(model, weights | {"BahdanauAttention/attention_v:0": -weights["BahdanauAttention/attention_v:0"]})
    assert golden.relative_error(found()[1], case["f32.final.log_probs"]) > 1e-3
    load_tfa_weights(model, weights)


def test_a_model_loaded_from_a_file_decodes_greedily_like_the_reference(tmp_path):
    case = golden.case(GREEDY)
    p = case.params
    model = Translator(p, LuongAttention(p["cell_units"], scale=True))
    np.savez(tmp_path / "tfa.npz", **tfa_weights(case, "LuongAttention"))
    load_tfa_weights(model, tmp_path / "tfa.npz")
    decoder = BasicDecoder(
        model.cell,
        GreedyEmbeddingSampler(model.embedding),
        output_layer=model.dense,
        maximum_iterations=p["maximum_iterations"],
        impute_finished=p["impute_finished"],
    )

    def greedy(start_tokens):
        outputs, _, lengths = decoder(
            None, start_tokens=start_tokens, end_token=p["end_token"], initial_state=model.start(case)
        )
        return outputs.sample_id, lengths, outputs.rnn_output

    results = backend.compiled(greedy, model.variables)(case["in.start_tokens"])
    ids, lengths, logits = (ops.convert_to_numpy(result) for result in results)
    steps = case["f32.sample_id"].shape[1]  # a compiled loop goes on to the limit
    np.testing.assert_array_equal(ids[:, :steps], case["f32.sample_id"])
    np.testing.assert_array_equal(lengths, case["f32.final_sequence_lengths"])
    assert golden.relative_error(logits[:, :steps], case["f32.rnn_output"]) < 1e-5


def test_one_error_names_all_that_is_missing_left_over_or_of_another_shape_and_nothing_is_loaded(loaded):
    model, _, weights, _ = loaded
    before = [ops.convert_to_numpy(v.value) for v in model.weights]
    wrong = {name: w + 1 for name, w in weights.items()}
    del wrong["decoder/basic_decoder/decoder/dense/bias:0"]
    wrong["decoder/batch_normalization/gamma:0"] = np.ones(3)
    wrong["BahdanauAttention/memory_layer/kernel:0"] = np.ones((2, 2))
    with pytest.raises(UsageError) as caught:
        load_tfa_weights(model, wrong)
    message = str(caught.value)
    assert "\n" not in message and "missing: logits/bias (9,);" in message
    assert "left over: decoder/batch_normalization/gamma:0 (3,);" in message
    assert "of another shape: BahdanauAttention/memory_layer/kernel:0 (2, 2) for " in message
    for variable, value in zip(model.weights, before, strict=True):
        np.testing.assert_array_equal(ops.convert_to_numpy(variable.value), value)


def test_other_prefixes_and_numbers_make_no_difference(loaded):
    model, _, weights, placed = loaded
    renamed = {}
    for name in weights:
        bare = name.removesuffix(":0").replace("basic_decoder/", "").replace("lstm_cell_1", "lstm_cell_17")
        renamed[f"my_model/{bare.replace('BahdanauAttention', 'bahdanau_attention_3')}"] = weights[name]
    again = load_tfa_weights(model, renamed)
    assert list(again.values()) == list(placed.values())


def test_names_without_sides_are_taken_in_order_and_equal_names_as_a_list(loaded):
    model, _, weights, placed = loaded
    bare = [(name.split("/", 1)[1] if name.startswith("encoder/") else name, w) for name, w in weights.items()]
    bare = [(name.replace("decoder/embedding_1", "embedding"), w) for name, w in bare]
    again = load_tfa_weights(model, bare)
    assert list(again.values()) == list(placed.values())
    assert [name for name in again if name.startswith("embedding")] == ["embedding/embeddings:0", "embedding/embeddings:0#2"]


@pytest.mark.once
def test_a_model_that_is_not_built_and_a_file_that_holds_no_arrays_are_refused(tmp_path):
    with pytest.raises(UsageError, match="Expected a built model"):
        load_tfa_weights(layers.Dense(2), {})
    dense = layers.Dense(2)
    dense.build((None, 2))
    (tmp_path / "text.npz").write_text("no arrays")
    for path in ("text.npz", "absent.npz"):
        with pytest.raises(DataError, match=rf"{path}: Expected an \.npz file"):
            load_tfa_weights(dense, tmp_path / path)
