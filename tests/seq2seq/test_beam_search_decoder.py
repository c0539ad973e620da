"""TFA's beam search: against its golden vectors, against plain NumPy searches, and what it refuses."""

from typing import Any, NamedTuple

import keras
import numpy as np
import pytest
from keras import ops

import golden
from k3seq import backend as backends
from k3seq.errors import UsageError
from k3seq.parity.pool import QUICK
from k3seq.runtime import workers
from k3seq.seq2seq import beam_search_decoder as module
from k3seq.seq2seq.beam_search_decoder import BeamSearchDecoder
from k3seq.seq2seq.beam_search_step import fillable
from k3seq.seq2seq.decoder import dynamic_decode
from seq2seq import beam_cases

# JAX compiles each case, which takes seconds: without --heavy it takes these. With it every backend runs every case in both.
SOME = ("beam_lstm__all_scores", "beam_attention__w3_lp0.6_cp0.2")
SOME64 = ("beam_lstm__wider_than_vocab", "beam_attention__monotonic_cp")
COMPILES = keras.backend.backend() == "jax"


def ids(precision, some):
    """The cases to run: those that TFA has in float64 in that, the others in float32, and `some`; on JAX only `some`.

    The rest is marked heavy.
    """
    every = beam_cases.all_ids()
    best = [id for id in every if golden.case(id).precisions[-1] == precision]
    quick = set(some) if COMPILES else {*best, *some}
    return [pytest.param(id, marks=() if id in quick else pytest.mark.heavy) for id in every]


@pytest.mark.parametrize("id", ids("f32", SOME))
def test_it_equals_tfa(id):
    errors = beam_cases.errors(id, "f32", beam_cases.run(id, "f32", compiled=COMPILES))
    assert max(errors.values()) <= beam_cases.tolerance(id, "f32", "f32"), errors


@pytest.fixture(scope="module")
def float64_errors(backend, request):
    """{id: {name: error}} in float64; on JAX from one process for all, as float64 must be chosen before the import of jax."""
    heavy = request.config.getoption("--heavy")
    wanted = [parameter.values[0] for parameter in ids("f64", SOME64) if heavy or not parameter.marks]
    if backend != "jax":
        return beam_cases.run_all({"ids": wanted, "compiled": False})
    fast = {"JAX_ENABLE_X64": "1", "XLA_FLAGS": QUICK["XLA_FLAGS"]}
    payload = {"ids": wanted, "compiled": True}
    return workers.launch("jax", "seq2seq.beam_cases:run_all", payload, environment=fast, timeout=600)


@pytest.mark.parametrize("id", ids("f64", SOME64))
def test_it_equals_tfa_in_float64(id, float64_errors):
    assert isinstance(float64_errors, dict), float64_errors
    tolerance = beam_cases.tolerance(id, golden.case(id).precisions[-1], "f64")
    assert max(float64_errors[id].values()) <= tolerance, float64_errors[id]


def test_no_hypothesis_is_found_twice_where_fewer_than_the_beams_are_alive():
    output_layer = keras.layers.Dense(2, kernel_initializer="zeros")
    output_layer.build((None, 3))
    output_layer.bias.assign(np.log([0.4, 0.6]))
    search = BeamSearchDecoder(keras.layers.LSTMCell(3), 4, output_layer=output_layer, maximum_iterations=4)
    start = [np.zeros((4, 3), "float32")] * 2
    outputs, state, _ = search(np.zeros((2, 3), "float32"), start_tokens=np.ones(1, "int32"), end_token=0, initial_state=start)
    found = ops.convert_to_numpy(outputs.predicted_ids)[0].T.tolist()
    assert found == [[0, 0, 0, 0], [1, 0, 0, 0], [1, 1, 0, 0], [1, 1, 1, 1]]
    np.testing.assert_allclose(np.exp(ops.convert_to_numpy(state.log_probs)), [[0.4, 0.24, 0.144, 0.1296]], rtol=1e-5)


# On JAX the cases above are compiled already.
@pytest.mark.parametrize("id", ["beam_lstm__all_scores", *([] if COMPILES else ["beam_attention__w3_lp0.6_cp0.2"])])
def test_compiled_it_equals_tfa_and_fills_the_steps_after_the_end(id):
    errors = beam_cases.errors(id, "f32", beam_cases.run(id, "f32", compiled=True))
    assert max(errors.values()) <= beam_cases.tolerance(id, "f32", "f32"), errors


def test_eagerly_it_equals_tfa():
    id = "beam_lstm__one_iteration"
    errors = beam_cases.errors(id, "f32", beam_cases.run(id, "f32", compiled=False))
    assert max(errors.values()) <= beam_cases.tolerance(id, "f32", "f32"), errors


CHANGES = [
    ({"reorder_tensor_arrays": False}, "final.alignment_history"),
    ({"length_penalty_weight": 0.5}, "step_scores"),
    ({"coverage_penalty_weight": 0.1}, "step_scores"),
]


# What compares is the same on every backend; where each change is compiled, one is enough.
@pytest.mark.parametrize("change, differs", CHANGES[:1] if COMPILES else CHANGES, ids=str)
def test_the_comparison_with_tfa_sees_a_difference(change, differs):
    id = "beam_attention__w3_lp1.0_cp0.2"
    assert beam_cases.errors(id, "f32", beam_cases.run(id, "f32", compiled=False, **change))[differs] > 1e-3


class Pair(NamedTuple):
    """A state as an attention wrapper has it, as far as coverage asks."""

    h: Any
    alignments: Any


def cell(units=4, **options):
    return keras.layers.LSTMCell(units, recurrent_initializer="zeros", **options)


def zeros(rows, units=4):
    return [np.zeros((rows, units), "float32")] * 2


LIKED = np.array([0.0, 0.1, 0.2, 0.3, 0.5], "float32")
EMBEDDING = np.random.default_rng(0).normal(size=(5, 3)).astype("float32")
TOKENS = np.array([0, 1], "int32")


def decoder(width=3, **options):
    options = {"output_layer": keras.layers.Dense(5), "maximum_iterations": 4, **options}
    return BeamSearchDecoder(options.pop("cell", None) or cell(), width, **options)


def search(decoder, embedding=EMBEDDING, start_tokens=TOKENS, end_token=4, initial_state=None):
    state = zeros(2 * decoder.beam_width) if initial_state is None else initial_state
    return decoder(embedding, start_tokens=start_tokens, end_token=end_token, initial_state=state)


REFUSED = {
    "end token": (lambda: search(decoder(), end_token=5), "end_token in a vocabulary of 5. Received: end_token=5"),
    "negative end token": (lambda: search(decoder(), end_token=-1), "Received: end_token=-1"),
    "start token": (lambda: search(decoder(), start_tokens=[0, 5]), "start_tokens in a vocabulary of 5"),
    "matrix of tokens": (lambda: search(decoder(), start_tokens=[[0, 1]]), "start_tokens to be a vector"),
    "vector of end tokens": (lambda: search(decoder(), end_token=[4, 4]), "end_token to be a scalar"),
    "width": (
        lambda: search(decoder(6, maximum_iterations=1)),
        "a vocabulary of 5 and 1 steps can fill",
    ),
    "no width": (lambda: decoder(0), "beam_width to be an int of at least 1"),
    "no iterations": (lambda: decoder(maximum_iterations=0), "maximum_iterations of at least 1"),
    "impute_finished": (lambda: decoder(impute_finished=True), "impute_finished=False"),
    "not tiled": (lambda: search(decoder(), initial_state=zeros(2)), "6 rows, 2 times 3 beams: tile_batch"),
    "another structure": (
        lambda: search(decoder(), initial_state=zeros(6)[:1]),
        "2 tensors, as the cell's. Received: 1",
    ),
    "coverage without attention": (lambda: search(decoder(coverage_penalty_weight=0.1)), "coverage_penalty_weight of 0"),
    "a length penalty of nan": (lambda: decoder(length_penalty_weight=float("nan")), "length_penalty_weight to be a finite"),
    "a coverage penalty of inf": (
        lambda: decoder(coverage_penalty_weight=float("inf")),
        "Received: coverage_penalty_weight=inf",
    ),
    "a coverage penalty of text": (lambda: decoder(coverage_penalty_weight="1"), "Received: coverage_penalty_weight='1'"),
    "no embedding": (lambda: search(decoder(), None), "either an embedding or an embedding_fn. Received: neither"),
    "two embeddings": (lambda: search(decoder(embedding_fn=lambda ids: ids)), "Received: both"),
    "no function": (lambda: decoder(embedding_fn=3), "embedding_fn to be a callable"),
    "no cell": (lambda: decoder(cell=keras.layers.Dense(3)), "cell to be an RNN cell"),
    "no layer": (lambda: decoder(output_layer=len), "output_layer to be a Keras layer"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_what_cannot_be_is_refused(case):
    refused, message = REFUSED[case]
    with pytest.raises(UsageError, match=message):
        refused()


def test_impute_finished_is_refused_by_dynamic_decode_too():
    given = {"start_tokens": TOKENS, "end_token": 4, "initial_state": zeros(6)}
    with pytest.raises(UsageError, match="impute_finished=False"):
        dynamic_decode(decoder(), impute_finished=True, decoder_init_input=EMBEDDING, decoder_init_kwargs=given)


def test_dynamic_decode_gives_the_lengths_of_the_beams():
    searching = decoder(output_layer=keras.layers.Dense(5, kernel_initializer="zeros", bias_initializer=lambda *a, **k: LIKED))
    searching.build(EMBEDDING.shape)
    given = {"start_tokens": TOKENS, "end_token": 4, "initial_state": [ops.convert_to_tensor(x) for x in zeros(6)]}

    def run(embedding):
        return dynamic_decode(searching, maximum_iterations=4, decoder_init_input=embedding, decoder_init_kwargs=given)

    outputs, state, lengths = backends.compiled(run)(ops.convert_to_tensor(EMBEDDING))
    ids, lengths = ops.convert_to_numpy(outputs.predicted_ids), ops.convert_to_numpy(lengths)
    np.testing.assert_array_equal(lengths, ops.convert_to_numpy(state.lengths))
    words = (np.cumsum(ids == 4, axis=1) == 0).sum(axis=1)  # and the end token is counted where there is one
    np.testing.assert_array_equal(lengths, np.minimum(words + 1, 4))
    assert len(np.unique(lengths)) > 1


def test_an_attention_state_that_is_not_tiled_is_refused():
    case = golden.case("beam_attention__w3_lp0.6_cp0.2")
    decoder = beam_cases.decoder_of(case, "float32")
    given = beam_cases.inputs_of(case, "float32")
    decoder.cell.attention_mechanism.setup_memory(given["memory"], given["memory_sequence_length"])
    state = decoder.cell.get_initial_state(batch_size=2)
    with pytest.raises(UsageError, match="6 rows, 2 times 3 beams: tile_batch"):
        search(decoder, given["embedding"], given["start_tokens"], initial_state=state)
    with pytest.raises(UsageError, match="1 attention state, as the cell's. Received: 2 tensors"):
        search(decoder, given["embedding"], given["start_tokens"], initial_state=[given["init_h"], given["init_c"]])


def test_nothing_of_a_call_stays_in_the_decoder_also_after_an_error():
    refusing = decoder()
    with pytest.raises(UsageError):
        search(refusing, end_token=5)
    with pytest.raises(UsageError, match="has not begun"):
        _ = refusing.batch_size


@pytest.mark.parametrize("width, vocabulary, steps", [(3, 2, 2), (4, 2, 2), (1, 1, 9), (2, 1, 9), (22, 5, 2), (21, 5, 2)])
def test_a_vocabulary_fills_as_many_beams_as_it_has_sequences(width, vocabulary, steps):
    others = vocabulary - 1
    sequences = sum(others**n for n in range(steps)) + others**steps
    assert fillable(width, vocabulary, steps) == (width <= sequences)
    assert fillable(width, vocabulary, None) == (vocabulary > 1 or width == 1)


def test_an_embedding_function_of_its_own_time_major_outputs_and_half_precision():
    layer = keras.layers.Embedding(5, 3, weights=[EMBEDDING])
    layer.build()
    half = cell(dtype="float16")
    one = decoder(cell=half, embedding_fn=layer, output_time_major=True, maximum_iterations=3)
    other = decoder(cell=half, output_layer=one.output_layer, maximum_iterations=3)
    state = [x.astype("float16") for x in zeros(6)]

    def both():
        first, second = search(one, None, initial_state=state), search(other, initial_state=state)
        return first[0].predicted_ids, second[0].predicted_ids, first[1].log_probs, second[1].cell_state[0]

    one.build()
    other.build(EMBEDDING.shape)
    time_major, batch_major, log_probs, h = backends.compiled(both, other.variables)()
    assert tuple(time_major.shape) == (3, 2, 3) and tuple(batch_major.shape) == (2, 3, 3)
    np.testing.assert_array_equal(np.swapaxes(ops.convert_to_numpy(time_major), 0, 1), ops.convert_to_numpy(batch_major))
    assert keras.backend.standardize_dtype(log_probs.dtype) == "float32"
    assert keras.backend.standardize_dtype(h.dtype) == "float16"


@pytest.mark.once  # and Keras imports TensorFlow to read a config
def test_a_decoder_is_made_again_from_its_config():
    one = decoder(length_penalty_weight=0.6, output_all_scores=True, reorder_tensor_arrays=False, name="search")
    other = BeamSearchDecoder.from_config(one.get_config())
    assert other.get_config() == one.get_config() and isinstance(other.cell, keras.layers.LSTMCell)
    assert other.get_config() != decoder(length_penalty_weight=0.5, name="search").get_config()


def test_attention_is_the_mean_over_mechanisms_and_over_cells():
    one, two = np.float32([[[1, 0]]]), np.float32([[[0, 1]]])
    several = (Pair(None, (one, two)), Pair(None, one), np.zeros((1, 1, 4)))
    assert ops.convert_to_numpy(module.get_attention_probs(several, 0.1)).tolist() == [[[0.75, 0.25]]]
    assert module.get_attention_probs(several, 0.0) is None
