"""`BasicDecoder` against the golden vectors, in a functional model, saved and loaded."""

import keras
import numpy as np
import pytest
from keras import layers, ops

from k3seq.errors import UsageError
from k3seq.runtime.workers import Failure, launch
from k3seq.seq2seq.basic_decoder import BasicDecoder, BasicDecoderOutput
from k3seq.seq2seq.expect import WrongType
from k3seq.seq2seq.sampler import GreedyEmbeddingSampler, TrainingSampler
from seq2seq.attention_cases import exact_products
from seq2seq.decoder_cases import FAMILIES, has_float64, ids, run, run_all, run_gradients

COMPILED = [
    "decoder_training__lstm_mask_time_major",
    "decoder_training__luong_lens_impute",
    "decoder_greedy__luong_mixed_impute",
    "scheduled_embedding__p1",
    "scheduled_output__p1_aux",
]
EAGER = ["decoder_training__lstm_short_lens", "decoder_training__lstm_all_zero_lens", "decoder_greedy__lstm_all_end_impute"]
if keras.backend.backend() == "jax":
    EAGER = EAGER[:1]  # JAX compiles each operation of an eager run


@pytest.mark.parametrize("id", COMPILED)
def test_a_compiled_decoder_gives_the_golden_results_and_zeros_beyond_them(id):
    errors = run(id, "f32", compiled=True)
    assert max(errors.values()) <= 1e-5, errors


@pytest.mark.heavy
@pytest.mark.parametrize("id", [id for id in ids(*FAMILIES) if id not in COMPILED])
def test_every_other_compiled_decoder_gives_the_golden_results(id):
    errors = run(id, "f32", compiled=True)
    assert max(errors.values()) <= 1e-5, errors


@pytest.mark.parametrize("id", EAGER)
def test_an_eager_decoder_gives_the_golden_results_and_ends_with_its_last_row(id):
    errors = run(id, "f32", compiled=False)
    assert max(errors.values()) <= 1e-5, errors


@pytest.mark.parametrize("id", ["gradients__luong"])
def test_the_gradients_are_the_golden_ones(id):
    errors = run_gradients(id, "f32")
    assert max(errors.values()) <= 1e-5 and len(errors) >= 8, errors


@pytest.mark.parametrize("every", [False, pytest.param(True, marks=pytest.mark.heavy)])
def test_cases_and_gradients_are_golden_in_float64(backend, every):
    """All cases, gradients and losses. JAX runs in another process, which gets float64 before it starts.

    JAX compiles every case, so that without --heavy it takes the first of each family.
    """
    families = (*FAMILIES, "gradients", "sequence_loss")
    expected = ids(*families)
    if has_float64():
        if every:
            pytest.skip("the test without --heavy runs every case where float64 needs no process of its own")
        errors = run_all({"precision": "f64", "compiled": False, "ids": expected})
    else:
        if not every:  # a case of the gradients is tested above
            expected = [ids(family)[0] for family in families if family != "gradients"]
        wanted = {"JAX_ENABLE_X64": "1", "XLA_FLAGS": "--xla_backend_optimization_level=0"}
        payload = {"precision": "f64", "compiled": True, "ids": expected}
        errors = launch(backend, "seq2seq.decoder_cases:run_all", payload, environment=wanted)
        assert not isinstance(errors, Failure), errors
    assert sorted(errors) == sorted(expected)
    assert max(errors.values()) <= 1e-10, {id: error for id, error in errors.items() if error > 1e-10}


def test_a_float32_result_is_not_golden_in_float64():
    with exact_products():
        errors = run("decoder_training__lstm_lens", "f32")
    assert max(errors.values()) > 1e-10


VOCABULARY, UNITS, STEPS, ROWS = 7, 5, 4, 6
X = np.random.default_rng(0).integers(1, VOCABULARY, (ROWS, 3))
Y = np.random.default_rng(1).integers(1, VOCABULARY, (ROWS, STEPS))
LENGTHS = np.array([3, 1, 2, 3, 2, 1])


def book_model():
    """The seed's functional model: two token inputs that share an embedding, and the decoder's lengths."""
    encoder_inputs = keras.Input((None,), dtype="int32")
    decoder_inputs = keras.Input((None,), dtype="int32")
    sequence_lengths = keras.Input((), dtype="int32")
    embeddings = layers.Embedding(VOCABULARY, 3)
    _, h, c = layers.LSTM(UNITS, return_state=True)(embeddings(encoder_inputs))
    decoder = BasicDecoder(layers.LSTMCell(UNITS), TrainingSampler(), output_layer=layers.Dense(VOCABULARY))
    outputs, state, lengths = decoder(embeddings(decoder_inputs), initial_state=[h, c], sequence_length=sequence_lengths)
    assert outputs.rnn_output.shape == (None, None, VOCABULARY) and outputs.sample_id.dtype == "int32"
    assert [leaf.shape for leaf in state] == [(None, UNITS)] * 2 and lengths.shape == (None,)
    inputs = [encoder_inputs, decoder_inputs, sequence_lengths]
    return keras.Model(inputs, [ops.softmax(outputs.rnn_output), outputs.sample_id, lengths])


@pytest.fixture(scope="module")
def trained():
    """The model after some epochs of `fit`, its losses, and what it predicts."""
    keras.utils.set_random_seed(3)
    model = book_model()
    trainer = keras.Model(model.inputs, model.outputs[0])
    trainer.compile("adam", loss="sparse_categorical_crossentropy")
    trainer.optimizer.learning_rate = 0.05
    batch = [X, np.c_[np.zeros((ROWS, 1)), Y[:, :-1]], np.full(ROWS, STEPS)]
    history = trainer.fit(batch, Y, epochs=12, batch_size=ROWS, verbose=0).history["loss"]
    batch[2] = LENGTHS
    return model, history, batch, [ops.convert_to_numpy(leaf) for leaf in model(batch)]


def test_the_books_model_trains(trained):
    _, losses, _, _ = trained
    assert losses[0] == pytest.approx(np.log(VOCABULARY), rel=0.1) and losses[-1] < 0.8 * losses[0]


def test_in_a_model_outputs_have_the_steps_of_the_inputs_and_zeros_after_the_longest_row(trained):
    _, _, _, (probabilities, ids, lengths) = trained
    assert probabilities.shape == (ROWS, STEPS, VOCABULARY)
    np.testing.assert_array_equal(lengths, LENGTHS)
    np.testing.assert_allclose(probabilities[:, 3], 1 / VOCABULARY)  # of logits 0
    assert not ids[:, 3].any() and np.ptp(probabilities[:, :3], axis=-1).min() > 1e-3


def test_a_saved_model_loads_with_the_same_paths_and_outputs(trained, tmp_path):
    model, _, batch, expected = trained
    model.save(tmp_path / "book.keras")
    loaded = keras.saving.load_model(tmp_path / "book.keras")
    assert [weight.path for weight in loaded.weights] == [weight.path for weight in model.weights]
    assert "basic_decoder" in loaded.weights[-1].path
    for found, wanted in zip(loaded(batch), expected, strict=True):
        np.testing.assert_allclose(ops.convert_to_numpy(found), wanted, atol=1e-6)
    loaded.weights[-1].assign(loaded.weights[-1] + np.arange(VOCABULARY))
    assert np.abs(ops.convert_to_numpy(loaded(batch)[0]) - expected[0]).max() > 1e-2


def test_a_cell_with_dropout_has_one_mask_for_all_steps_and_none_in_inference():
    keras.utils.set_random_seed(0)
    cell = layers.LSTMCell(UNITS, dropout=0.5, recurrent_dropout=0.5)
    decoder = BasicDecoder(cell, TrainingSampler())
    x, state = np.ones((2, 3, 4), "float32"), [np.zeros((2, UNITS), "float32")] * 2
    plain, again, dropped = (
        ops.convert_to_numpy(decoder(x, initial_state=state, training=training)[0].rnn_output)
        for training in (None, False, True)
    )
    np.testing.assert_allclose(plain, again, atol=1e-6)
    assert np.abs(plain - dropped).max() > 1e-4 and cell._dropout_mask is None


@pytest.mark.once
@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((3, TrainingSampler()), "Expected cell to be an RNN cell"),
        ((layers.LSTMCell(2), "greedy"), "Expected sampler to be a Sampler"),
        ((layers.LSTMCell(2), TrainingSampler(), 3), "Expected output_layer to be a layer"),
    ],
)
def test_what_is_no_cell_sampler_or_layer_is_a_type_error(arguments, message):
    with pytest.raises(WrongType, match=message) as raised:
        BasicDecoder(*arguments)
    assert isinstance(raised.value, TypeError) and isinstance(raised.value, UsageError)


STATE = [np.zeros((2, 2), "float32")] * 2
BAD_CALLS = {
    "Expected initial_state. Received": dict(inputs=np.ones((2, 3, 4), "float32")),
    "Expected initial_state for 3 rows. Received: shape": dict(inputs=np.ones((3, 3, 4), "float32"), initial_state=STATE),
    "Expected sequence_length to be a vector": dict(
        inputs=np.ones((2, 3, 4), "float32"), initial_state=STATE, sequence_length=[[1, 2]]
    ),
    "Expected sequence_length of 0 to 3, the steps of the inputs. Received: 4": dict(
        inputs=np.ones((2, 3, 4), "float32"), initial_state=STATE, sequence_length=[4, 1]
    ),
    "Expected mask to be bool": dict(inputs=np.ones((2, 3, 4), "float32"), initial_state=STATE, mask=np.ones((2, 3), "int32")),
    "Expected mask to be right-padded": dict(
        inputs=np.ones((2, 3, 4), "float32"), initial_state=STATE, mask=np.array([[False, True, True]] * 2)
    ),
    "Expected inputs with a batch and a time axis": dict(inputs=np.ones((2,), "float32"), initial_state=STATE),
    "Expected inputs of at least one step": dict(inputs=np.ones((2, 0, 4), "float32"), initial_state=STATE),
}


@pytest.mark.parametrize("message", BAD_CALLS)
def test_a_bad_call_is_one_clear_error(message):
    call = {name: np.asarray(value) if name != "initial_state" else value for name, value in BAD_CALLS[message].items()}
    decoder = BasicDecoder(layers.LSTMCell(2, kernel_initializer="zeros", recurrent_initializer="zeros"), TrainingSampler())
    with pytest.raises(UsageError, match=message):
        decoder.initialize(**call)


def test_an_end_token_outside_the_vocabulary_of_the_outputs_raises():
    decoder = BasicDecoder(layers.LSTMCell(2), GreedyEmbeddingSampler(lambda ids: ops.one_hot(ids, 4)), maximum_iterations=2)
    with pytest.raises(UsageError, match="Expected end_token in a vocabulary of 2. Received: end_token=3"):
        decoder(None, initial_state=STATE, start_tokens=np.array([0, 1]), end_token=3)


def test_a_decoder_can_be_stepped_by_hand():
    decoder = BasicDecoder(layers.LSTMCell(2), TrainingSampler(), layers.Dense(3))
    finished, inputs, state = decoder.initialize(np.ones((2, 3, 4), "float32"), STATE, sequence_length=np.array([1, 2]))
    outputs, state, inputs, finished = decoder.step(0, inputs, state)
    assert isinstance(outputs, BasicDecoderOutput) and decoder.batch_size == 2
    assert decoder.output_size == ((3,), ()) and decoder.output_dtype == ("float32", "int32")
    assert tuple(outputs.rnn_output.shape) == (2, 3) and tuple(inputs.shape) == (2, 4)
    np.testing.assert_array_equal(ops.convert_to_numpy(finished), [True, False])
