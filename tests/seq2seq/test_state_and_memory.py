"""Where memories and states go: functional models, Keras' RNN under a mask, stacked cells, traced functions, checkpoints."""

import keras
import numpy as np
import pytest
from keras import ops

from k3seq import backend as backends
from k3seq import seq2seq
from k3seq.errors import UsageError

B, S, M, D, X, T = 4, 5, 2, 3, 2, 4
RNG = np.random.default_rng(0)


def draw(*shape):
    return RNG.normal(size=shape).astype("float32")


def array(x):
    return ops.convert_to_numpy(x)


@pytest.mark.parametrize("kind", [seq2seq.LuongAttention, seq2seq.BahdanauMonotonicAttention])
def test_a_mechanism_stands_on_its_own_in_a_functional_model_that_saves(kind, tmp_path):
    memory, lengths = keras.Input((S, M)), keras.Input((), dtype="int32")
    query, state = keras.Input((D,)), keras.Input((S,))
    mechanism = kind(D)
    mechanism.setup_memory(memory, lengths)
    model = keras.Model([memory, lengths, query, state], mechanism([query, state])[0])
    batch = [draw(B, S, M), np.array([1, 2, 4, 5], "int32"), draw(B, D), np.eye(B, S, dtype="float32")]
    found = model.predict(batch, verbose=0)
    mechanism.setup_memory(batch[0], batch[1])
    np.testing.assert_allclose(found, array(mechanism(batch[2:])[0]), rtol=1e-5, atol=1e-6)
    model.save(tmp_path / "model.keras")
    loaded = keras.saving.load_model(tmp_path / "model.keras")
    np.testing.assert_allclose(loaded.predict(batch, verbose=0), found, rtol=1e-5, atol=1e-6)
    other = loaded.predict([-batch[0], *batch[1:]], verbose=0)  # the control: the memory is an input
    assert np.abs(other - found).max() > 1e-3


@pytest.mark.parametrize("explicit", [True, False])
@pytest.mark.parametrize("rows", [4, 5])  # as many as steps of the memory, too
@pytest.mark.parametrize("cell, attention", [("LSTMCell", True), ("GRUCell", True), ("GRUCell", False)])
def test_keras_rnn_with_a_mask_runs_each_row_as_if_alone(cell, attention, rows, explicit):
    mechanism = seq2seq.LuongAttention(D)
    wrapper = seq2seq.AttentionWrapper(
        getattr(keras.layers, cell)(D), mechanism, attention_layer_size=D + 1, output_attention=attention
    )
    rnn = keras.layers.RNN(wrapper, return_sequences=True)
    memory, inputs, lengths = draw(rows, S, M), draw(rows, T, X), np.arange(rows) % T + 1
    mechanism.setup_memory(memory)
    start = {"initial_state": wrapper.get_initial_state()} if explicit else {}
    found = array(rnn(inputs, mask=np.arange(T) < lengths[:, None], **start))
    for row, length in enumerate(lengths):
        mechanism.setup_memory(memory[row : row + 1])
        alone = array(rnn(inputs[row : row + 1, :length]))[0]
        np.testing.assert_allclose(found[row, :length], alone, rtol=1e-4, atol=1e-5)
        np.testing.assert_allclose(found[row, length:], np.tile(alone[-1:], (T - length, 1)), rtol=1e-4, atol=1e-5)


def test_stacked_cells_keep_the_history_of_alignments_in_a_decoder_and_in_a_loop():
    mechanism = seq2seq.LuongAttention(D)
    attending = seq2seq.AttentionWrapper(keras.layers.LSTMCell(D), mechanism, alignment_history=True)
    stack = keras.layers.StackedRNNCells([attending, keras.layers.LSTMCell(D)])
    mechanism.setup_memory(draw(B, S, M))
    state, inputs = stack.get_initial_state(batch_size=B), draw(B, T, X)
    _, final, _ = seq2seq.BasicDecoder(stack, seq2seq.TrainingSampler())(inputs, initial_state=state)
    history = array(final[0].alignment_history.stack())
    assert history.shape == (T, B, S) and np.ptp(history) > 1e-3
    for step in range(T):
        _, state = stack(inputs[:, step], state)
    np.testing.assert_allclose(array(attending.as_state(state[0]).alignment_history.stack()), history, rtol=1e-5, atol=1e-6)


def test_keras_rnn_refuses_a_history_that_grows():
    mechanism = seq2seq.LuongAttention(D, draw(B, S, M))
    wrapper = seq2seq.AttentionWrapper(keras.layers.LSTMCell(D), mechanism, alignment_history=True)
    with pytest.raises(UsageError, match="alignment_history=False where a state comes as a list"):
        keras.layers.RNN(wrapper)(draw(B, T, X))


def test_a_memory_of_a_traced_function_is_gone_when_the_function_ends():
    mechanism = seq2seq.LuongAttention(D)
    wrapper = seq2seq.AttentionWrapper(keras.layers.LSTMCell(D), mechanism)

    def begin(memory):
        mechanism.setup_memory(memory)  # without lengths
        return ops.sum(memory)

    mechanism.build((None, None, M))
    backends.compiled(begin, mechanism.variables)(draw(B, S, M))
    seq2seq.BasicDecoder(wrapper, seq2seq.TrainingSampler())  # reads the sizes of the cell
    if keras.backend.backend() != "torch":  # which runs eagerly
        assert not mechanism.memory_initialized
    mechanism.setup_memory(draw(B, S, M))
    assert wrapper.get_initial_state().alignments.shape == (B, S)


def tensorflow():
    if keras.backend.backend() != "tensorflow":
        pytest.skip("only TensorFlow traces functions with unknown sizes")
    return pytest.importorskip("tensorflow")


def test_the_number_of_steps_may_be_unknown():
    tf = tensorflow()
    cell = keras.layers.LSTMCell(4)
    cell.build((None, 3))
    decoder = seq2seq.BasicDecoder(cell, seq2seq.TrainingSampler())

    @tf.function(input_signature=[tf.TensorSpec([None, None, 3]), tf.TensorSpec([None], tf.int32)])
    def run(inputs, lengths):
        start = [tf.zeros((tf.shape(inputs)[0], 4))] * 2
        return decoder(inputs, initial_state=start, sequence_length=lengths)[0].rnn_output

    inputs = draw(2, 5, 3)
    assert run(inputs, [5, 1]).shape == (2, 5, 4)
    assert run(inputs, [3, 1]).shape == (2, 3, 4)  # as many steps as were taken, as in TFA
    eager = decoder(inputs, initial_state=[np.zeros((2, 4), "float32")] * 2)[0].rnn_output
    np.testing.assert_allclose(run(inputs, [5, 5]), eager, rtol=1e-5, atol=1e-6)


def test_a_beam_search_with_a_history_may_have_an_unknown_batch_size():
    tf = tensorflow()
    mechanism = seq2seq.LuongAttention(D)
    wrapper = seq2seq.AttentionWrapper(keras.layers.LSTMCell(D), mechanism, alignment_history=True)
    decoder = seq2seq.BeamSearchDecoder(wrapper, 2, output_layer=keras.layers.Dense(6), maximum_iterations=3)
    embedding = draw(6, X)

    @tf.function(input_signature=[tf.TensorSpec([None, None, M])])
    def search(memory):
        mechanism.setup_memory(seq2seq.tile_batch(memory, 2))
        rows = tf.shape(memory)[0]
        start = wrapper.get_initial_state(batch_size=2 * rows)
        outputs, state, _ = decoder(embedding, start_tokens=tf.ones(rows, tf.int32), end_token=0, initial_state=start)
        return outputs.predicted_ids, state.cell_state.alignment_history.stack()

    memory = draw(B, S, M)
    ids, history = search(memory)
    mechanism.setup_memory(seq2seq.tile_batch(memory, 2))
    outputs, state, _ = decoder(
        embedding, start_tokens=np.ones(B, "int32"), end_token=0, initial_state=wrapper.get_initial_state()
    )
    steps = outputs.predicted_ids.shape[1]
    np.testing.assert_array_equal(ids[:, :steps], outputs.predicted_ids)
    np.testing.assert_allclose(history[:steps], state.cell_state.alignment_history.stack(), rtol=1e-5, atol=1e-6)


def test_a_tensorflow_checkpoint_holds_every_weight(tmp_path):
    tf = tensorflow()

    def model():
        mechanism = seq2seq.LuongAttention(D)
        wrapper = seq2seq.AttentionWrapper(keras.layers.LSTMCell(D), mechanism, attention_layer_size=D)
        sampler = seq2seq.GreedyEmbeddingSampler(keras.layers.Embedding(6, X))
        decoder = seq2seq.BasicDecoder(wrapper, sampler, keras.layers.Dense(6), maximum_iterations=2)
        mechanism.setup_memory(np.ones((B, S, M), "float32"))
        decoder(None, start_tokens=np.ones(B, "int32"), end_token=0, initial_state=wrapper.get_initial_state())
        return decoder

    first, second = model(), model()
    assert len(first.trainable_weights) == 8  # memory, cell (3), attention layer, output (2), embedding: each once
    path = tf.train.Checkpoint(model=first).save(str(tmp_path / "checkpoint"))
    tf.train.Checkpoint(model=second).restore(path).assert_consumed()
    for old, new in zip(first.weights, second.weights, strict=True):
        np.testing.assert_array_equal(array(old), array(new), err_msg=old.path)


@pytest.mark.parametrize("kind", ["embedding", "output"])
def test_a_variable_as_sampling_probability_is_read_at_each_call(kind, tmp_path):
    probability = keras.Variable(0.0, name="probability")
    if kind == "embedding":
        sampler = seq2seq.ScheduledEmbeddingTrainingSampler(
            probability, keras.layers.Embedding(X, X), seed=1, scheduling_seed=2
        )
    else:
        sampler = seq2seq.ScheduledOutputTrainingSampler(probability, seed=1)
    inputs, h, c = keras.Input((T, X)), keras.Input((X,)), keras.Input((X,))
    outputs, _, _ = seq2seq.BasicDecoder(keras.layers.LSTMCell(X), sampler)(inputs, initial_state=[h, c])
    model = keras.Model([inputs, h, c], outputs.sample_id)
    batch = [draw(B, T, X), draw(B, X), draw(B, X)]
    sampled = (lambda ids: (ids >= 0).mean()) if kind == "embedding" else (lambda ids: ids.mean())
    assert sampled(model.predict(batch, verbose=0)) == 0
    probability.assign(1.0)
    assert sampled(model.predict(batch, verbose=0)) == 1
    assert not probability.trainable and all(v is not probability for v in model.trainable_variables)
    model.save(tmp_path / "model.keras")
    loaded = keras.saving.load_model(tmp_path / "model.keras")
    assert sampled(loaded.predict(batch, verbose=0)) == 1


def test_a_variable_as_temperature_is_read_at_each_call():
    temperature = keras.Variable(1e-6)
    sampler = seq2seq.SampleEmbeddingSampler(keras.layers.Embedding(40, X), temperature, seed=3)
    cell = keras.layers.LSTMCell(40)
    decoder = seq2seq.BasicDecoder(cell, sampler, maximum_iterations=6)
    h, c = keras.Input((40,)), keras.Input((40,))
    start = keras.Input((), dtype="int32")
    outputs, _, _ = decoder(None, start_tokens=start, end_token=39, initial_state=[h, c])
    model = keras.Model([start, h, c], outputs.sample_id)
    batch = [np.ones(B, "int32"), draw(B, 40), draw(B, 40)]
    cold, again = (model.predict(batch, verbose=0) for _ in range(2))
    temperature.assign(10.0)
    assert (cold == again).all() and (model.predict(batch, verbose=0) != cold).any()
