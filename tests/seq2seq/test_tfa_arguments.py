"""Names and arguments of `tfa.seq2seq` that a migrating program uses."""

import keras
import numpy as np
import pytest
from keras import ops

from k3seq import seq2seq
from k3seq.errors import UsageError
from k3seq.seq2seq import sampler as samplers

B, S, M, D, V = 4, 5, 3, 6, 7
RNG = np.random.default_rng(0)
MEMORY, QUERY, STATE = (RNG.normal(size=shape).astype("float32") for shape in ((B, S, M), (B, D), (B, S)))
MECHANISMS = [
    seq2seq.LuongAttention,
    seq2seq.BahdanauAttention,
    seq2seq.LuongMonotonicAttention,
    seq2seq.BahdanauMonotonicAttention,
]


def array(x):
    return ops.convert_to_numpy(x)


@pytest.mark.parametrize("kind", MECHANISMS)
def test_a_mechanism_takes_layers_and_is_the_same_from_its_config(kind):
    ones = keras.layers.Dense(D, kernel_initializer="ones", use_bias=False)
    options = {"query_layer": keras.layers.Dense(D, kernel_initializer="ones")} if "Bahdanau" in kind.__name__ else {}
    mechanism = kind(D, MEMORY, memory_layer=ones, **options)
    np.testing.assert_allclose(array(mechanism.keys), np.repeat(MEMORY.sum(-1, keepdims=True), D, axis=-1), rtol=1e-5)
    mechanism([QUERY, STATE])
    config = mechanism.get_config()
    again = kind.from_config(config, custom_objects={})
    assert again.get_config() == config and isinstance(again.memory_layer, keras.layers.Dense)
    # TFA's order: the memory, then the shapes of query and state
    again.build(MEMORY.shape)
    again.build([QUERY.shape, STATE.shape])
    again.set_weights(mechanism.get_weights())
    again(MEMORY, setup_memory=True)
    np.testing.assert_allclose(array(again([QUERY, STATE])[0]), array(mechanism([QUERY, STATE])[0]), rtol=1e-6)


def test_shapes_of_query_and_state_before_the_memory_are_refused():
    with pytest.raises(UsageError, match="memory"):
        seq2seq.LuongAttention(D).build([QUERY.shape, STATE.shape])


@keras.saving.register_keras_serializable(package="test")
class Uniform(seq2seq.AttentionMechanism):
    """TFA's way to define a mechanism."""

    def __init__(self, **kwargs):
        super().__init__(None, lambda scores, state: ops.softmax(scores, axis=-1), **kwargs)

    def _calculate_attention(self, query, state):
        alignments = self.probability_fn(ops.zeros((B, S)), state)
        return alignments, alignments


def test_a_subclass_may_define_calculate_attention_under_its_name_in_tfa():
    mechanism = Uniform()
    mechanism.setup_memory(MEMORY, np.array([1, 2, 4, 5], "int32"))
    alignments, _ = mechanism([QUERY[:, :M], STATE])
    expected = [[1 / n] * n + [0.0] * (S - n) for n in (1, 2, 4, 5)]  # padding gets none, as in TFA
    np.testing.assert_allclose(array(alignments), expected, rtol=1e-6)
    with pytest.raises(NotImplementedError, match="calculate_attention"):
        seq2seq.AttentionMechanism(MEMORY, lambda scores, state: scores)([QUERY[:, :M], STATE])


def test_hardmax_takes_a_name_and_finds_the_largest_among_lowest_numbers():
    logits = np.array([[-np.inf, np.finfo("float32").min, -np.inf], [1.0, 2.0, 2.0]], "float32")
    assert array(seq2seq.hardmax(logits, name="hard")).tolist() == [[0, 1, 0], [0, 1, 0]]


def test_samples_follow_their_probabilities():
    logits = np.log(np.array([[0.1, 0.2, 0.7]], "float32"))
    ids = array(samplers.categorical_sample(logits, sample_shape=(4000,), seed=1))
    assert ids.shape == (4000, 1) and ids.dtype == "int32"
    np.testing.assert_allclose(np.bincount(ids[:, 0]) / 4000, [0.1, 0.2, 0.7], atol=0.03)
    drawn = array(samplers.bernoulli_sample(probs=[0.1, 0.9], sample_shape=(4000,), seed=1))
    np.testing.assert_allclose(drawn.mean(axis=0), [0.1, 0.9], atol=0.03)
    assert array(samplers.bernoulli_sample(logits=[-99.0, 99.0], dtype="bool")).tolist() == [False, True]
    with pytest.raises(UsageError, match="probs or logits"):
        samplers.bernoulli_sample()


def test_a_seed_repeats_a_sample_and_other_logits_draw_other_numbers():
    logits = np.zeros((1, 1000), "float32")
    first, second = (array(samplers.categorical_sample(logits, sample_shape=(50,), seed=1)) for _ in range(2))
    other = array(samplers.categorical_sample(logits + 0.1, sample_shape=(50,), seed=1))
    assert (first == second).all() and (first != other).any()
    assert (first != array(samplers.categorical_sample(logits, sample_shape=(50,)))).any()


def embedding_cases():
    table = keras.layers.Embedding(V, M)
    table.build(())
    cell = keras.layers.LSTMCell(V)
    tokens = {"start_tokens": np.ones(B, "int32"), "end_token": 0}
    zeros = [np.zeros((B, V), "float32")] * 2
    tiled = [np.zeros((2 * B, V), "float32")] * 2
    greedy = seq2seq.BasicDecoder(cell, seq2seq.GreedyEmbeddingSampler(), maximum_iterations=3)
    beams = seq2seq.BeamSearchDecoder(cell, 2, maximum_iterations=3)
    return {
        "greedy": lambda e: greedy(e, initial_state=zeros, **tokens)[0].rnn_output,
        "beams": lambda e: beams(e, initial_state=tiled, **tokens)[0].beam_search_decoder_output.scores,
    }, table


@pytest.mark.parametrize("name", ["greedy", "beams"])
def test_the_weights_of_an_embedding_layer_are_an_embedding(name):
    cases, table = embedding_cases()
    np.testing.assert_allclose(array(cases[name](table.weights)), array(cases[name](array(table.weights[0]))), rtol=1e-6)


@pytest.mark.parametrize("layer", [True, False])
def test_an_embedding_fn_tells_the_size_of_a_cell_that_is_not_built(layer):
    embed = keras.layers.Embedding(V, 3)
    cell = keras.layers.LSTMCell(5)
    decoder = seq2seq.BeamSearchDecoder(
        cell, 2, embed if layer else lambda ids: embed(ids), keras.layers.Dense(V), maximum_iterations=2
    )
    decoder(None, start_tokens=np.ones(4, "int32"), end_token=0, initial_state=[np.zeros((8, 5), "float32")] * 2)
    assert tuple(cell.kernel.shape) == (3, 20)


def test_sizes_of_outputs_can_be_read_as_in_tfa():
    cell = keras.layers.LSTMCell(V)
    decoder = seq2seq.BasicDecoder(cell, seq2seq.TrainingSampler())
    decoder.initialize(MEMORY, initial_state=[np.zeros((B, V), "float32")] * 2)
    size = decoder.output_size
    assert size == seq2seq.BasicDecoderOutput(V, ()) and size.rnn_output.as_list() == [V] and size.rnn_output != V + 1
    beams = seq2seq.BeamSearchDecoder(cell, 2, output_all_scores=True)
    assert beams.output_size.scores.as_list() == [2, V]


def test_from_config_takes_custom_objects():
    class Own(keras.layers.LSTMCell):
        pass

    cell, custom = Own(V), {"Own": Own}
    for decoder in (seq2seq.BasicDecoder(cell, seq2seq.TrainingSampler()), seq2seq.BeamSearchDecoder(cell, 2)):
        assert isinstance(type(decoder).from_config(decoder.get_config(), custom_objects=custom).cell, Own)
    assert seq2seq.SequenceLoss.from_config(seq2seq.SequenceLoss().get_config(), custom_objects=custom)
    assert seq2seq.TrainingSampler.from_config({"time_major": True}, custom_objects=custom).time_major
