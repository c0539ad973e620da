"""Samplers: what they read, draw and refuse; the same draws on every backend."""

import keras
import numpy as np
import pytest
from keras import layers, ops

from k3seq import backend
from k3seq.errors import UsageError
from k3seq.random import bernoulli, categorical, fold, key
from k3seq.seq2seq.basic_decoder import BasicDecoder
from k3seq.seq2seq.sampler import (
    CustomSampler,
    GreedyEmbeddingSampler,
    InferenceSampler,
    SampleEmbeddingSampler,
    Sampler,
    ScheduledEmbeddingTrainingSampler,
    ScheduledOutputTrainingSampler,
    TrainingSampler,
)

GREEDY, SCHEDULED = GreedyEmbeddingSampler, ScheduledEmbeddingTrainingSampler
INPUTS = np.arange(24, dtype="float32").reshape(2, 3, 4)
LOGITS = np.array([[0.0, 1.0, 5.0], [4.0, 0.0, 4.0]], "float32")
TABLE = np.arange(12, dtype="float32").reshape(3, 4)


def numpy(*values):
    return [ops.convert_to_numpy(value) for value in values]


def test_a_training_sampler_reads_the_inputs_in_turn_and_zeros_at_the_end():
    sampler = TrainingSampler()
    finished, first = numpy(*sampler.initialize(INPUTS, sequence_length=np.array([3, 0])))
    np.testing.assert_array_equal(finished, [False, True])
    np.testing.assert_array_equal(first, INPUTS[:, 0])
    np.testing.assert_array_equal(numpy(sampler.sample(0, ops.convert_to_tensor(LOGITS), None))[0], [2, 0])
    finished, following, state = sampler.next_inputs(0, None, "state", None)
    np.testing.assert_array_equal(numpy(following)[0], INPUTS[:, 1])
    finished, following = numpy(*sampler.next_inputs(2, None, state, None)[:2])
    assert finished.all() and not following.any() and state == "state"


def test_a_mask_is_a_sequence_length_in_both_layouts():
    mask = np.array([[True, True, False], [True, True, True]])
    batch, time = TrainingSampler(), TrainingSampler(time_major=True)
    batch.initialize(INPUTS, mask=mask)
    _, first = time.initialize(np.swapaxes(INPUTS, 0, 1), mask=mask.T)
    for sampler in (batch, time):
        np.testing.assert_array_equal(numpy(sampler.sequence_length)[0], [2, 3])
    np.testing.assert_array_equal(numpy(first)[0], INPUTS[:, 0])


@keras.saving.register_keras_serializable(package="tests")
def rising(step):
    """A probability that is 0 at step 0 and 1 from step 1 on."""
    return ops.minimum(ops.cast(step, "float32"), 1.0)


@pytest.mark.parametrize("schedule", [rising, keras.optimizers.schedules.PolynomialDecay(0.0, 1, 1.0)])
def test_a_schedule_gives_the_probability_of_the_step(schedule):
    sampler = ScheduledEmbeddingTrainingSampler(schedule, seed=1, scheduling_seed=2)
    for step, drawn in ((0, False), (1, True)):
        sampler.initialize(INPUTS, embedding=TABLE, step=step)
        ids = numpy(sampler.sample(0, ops.convert_to_tensor(LOGITS), None))[0]
        assert (ids > -1).all() == drawn and (ids == -1).all() != drawn


def test_the_step_counts_training_calls_and_is_a_weight_of_the_decoder():
    sampler = ScheduledOutputTrainingSampler(rising, seed=1)
    decoder = BasicDecoder(layers.LSTMCell(4), sampler)
    call = dict(initial_state=[np.zeros((2, 4), "float32")] * 2)
    ids = [numpy(decoder(INPUTS, training=training, **call)[0].sample_id)[0].mean() for training in (False, True, True)]
    assert ids == [0, 0, 1] and int(sampler.step.value) == 2
    assert "sampling_step" in [variable.name for variable in decoder.non_trainable_variables]


LIKING = np.random.default_rng(5).normal(0, 2, (3, 4)).astype("float32")  # what follows each of three tokens, of four


def by_hand(sampler, table, first, steps, step):
    """Sample ids (b, t) of a whole decoding, in NumPy: the outputs are the inputs, the draws those of the sampler's keys."""
    scheduled, inputs, found = hasattr(sampler, "scheduling_seed"), first[:, 0], []
    for time in range(steps):
        logits = inputs / np.float32(getattr(sampler, "softmax_temperature", 1.0))
        ids = categorical(fold(fold(key(sampler.seed, "ids" if scheduled else "sample"), step), time), logits)
        if scheduled:
            chosen = bernoulli(fold(fold(key(sampler.scheduling_seed, "choice"), step), time), 0.5, (len(ids),))
            ids = np.where(chosen, ids, -1)
        found.append(ids)
        read = first[:, min(time + 1, steps - 1)]
        inputs = np.where(ids[:, None] >= 0, table[np.maximum(ids, 0)], read)
    return np.stack(found, axis=1)


class Echo(layers.Layer):
    """A cell that gives its inputs."""

    output_size, state_size = 4, 1

    def call(self, inputs, states, training=None):
        return inputs, states


@pytest.mark.parametrize("drawing", [False, True], ids=["scheduled", "drawn"])
def test_a_seed_decodes_the_same_tokens_on_every_backend(drawing):
    rows, steps = 16, 5
    table = np.concatenate([LIKING, LIKING[:1] - 1])
    first = LIKING[np.random.default_rng(6).integers(0, 3, (rows, steps))]
    sampler = SampleEmbeddingSampler(softmax_temperature=1.5, seed=3) if drawing else SCHEDULED(0.5, None, False, 3, 4)
    decoder = BasicDecoder(Echo(), sampler, maximum_iterations=steps)

    def ids(inputs, table, step):
        given = {"initial_state": ops.zeros((rows, 1)), "step": step}
        if drawing:  # what a row draws after its end is of no account
            given |= {"start_tokens": np.zeros(rows, "int32"), "end_token": 3}
        else:
            given |= {"embedding": table}
        return decoder(table if drawing else inputs, **given)[0].sample_id

    run = backend.compiled(ids)
    start = np.tile(table[:1, None], (rows, steps, 1)) if drawing else first
    decoded = [numpy(run(first, table, np.int32(step)))[0] for step in (7, 8)]
    for step, found in zip((7, 8), decoded, strict=True):
        expected = by_hand(sampler, table, start, steps, step)
        ended = np.cumsum(expected == 3, axis=1) - (expected == 3) > 0 if drawing else np.zeros_like(expected, bool)
        np.testing.assert_array_equal(found[~ended], expected[~ended])
    assert (decoded[0] != decoded[1]).any()


def test_the_choice_of_a_scheduled_output_is_that_of_its_key():
    sampler = ScheduledOutputTrainingSampler(0.5, seed=4)
    sampler.initialize(np.tile(INPUTS, (8, 1, 1)), step=7)
    found = numpy(sampler.sample(ops.convert_to_tensor(2), None, None))[0]
    np.testing.assert_array_equal(found, bernoulli(fold(fold(key(4, "choice"), 7), 2), 0.5, (16,)))


def test_a_drawn_id_is_embedded_as_the_next_input_and_the_rest_is_read():
    sampler = ScheduledEmbeddingTrainingSampler(0.5)
    sampler.initialize(INPUTS, embedding=TABLE)
    _, following, _ = sampler.next_inputs(0, None, None, ops.convert_to_tensor(np.array([2, -1], "int32")))
    np.testing.assert_array_equal(numpy(following)[0], [TABLE[2], INPUTS[1, 1]])


def test_a_seed_draws_the_same_ids_again_and_another_step_or_none_draws_others():
    def draw(sampler, **options):
        sampler.initialize(TABLE, start_tokens=np.zeros(32, "int32"), end_token=2, **options)
        ids = numpy(sampler.sample(ops.convert_to_tensor(0), ops.zeros((32, 3)), None))[0]
        sampler.advance(training=False)
        return ids

    fixed, free = SampleEmbeddingSampler(seed=5), SampleEmbeddingSampler()
    first = draw(fixed)
    np.testing.assert_array_equal(first, categorical(fold(fold(key(5, "sample"), 0), 0), np.zeros((32, 3), "float32")))
    np.testing.assert_array_equal(first, draw(fixed))
    assert (first != draw(fixed, step=1)).any() and (draw(free) != draw(free)).any()


def test_a_low_temperature_takes_the_best():
    sampler = SampleEmbeddingSampler(softmax_temperature=1e-3, seed=0)
    sampler.initialize(TABLE, start_tokens=np.array([0, 1]), end_token=2)
    logits = ops.convert_to_tensor(LOGITS + np.array([[0.0, 0.0, 0.0], [1.0, 0.0, 0.0]], "float32"))
    np.testing.assert_array_equal(numpy(sampler.sample(0, logits, None))[0], [2, 0])


def test_the_best_of_equals_is_the_lowest_id_and_the_end_token_ends_a_row():
    sampler = GreedyEmbeddingSampler()
    finished, first = numpy(*sampler.initialize(TABLE, start_tokens=np.array([0, 1]), end_token=2))
    np.testing.assert_array_equal(first, TABLE[:2])
    ids = sampler.sample(0, ops.convert_to_tensor(LOGITS), None)
    ended, following, _ = sampler.next_inputs(0, None, None, ids)
    np.testing.assert_array_equal(numpy(ids)[0], [2, 0])
    np.testing.assert_array_equal(numpy(ended)[0], [True, False])
    np.testing.assert_array_equal(numpy(following)[0], TABLE[[2, 0]])
    assert not finished.any()


def test_an_inference_sampler_feeds_its_samples():
    sampler = InferenceSampler(lambda outputs: outputs * 2, [4], "float32", lambda samples: samples[:, 0] > 6)
    decoder = BasicDecoder(layers.SimpleRNNCell(4, activation="linear"), sampler, maximum_iterations=2)
    decoder.build((2, 4))
    decoder.cell.set_weights([np.eye(4), np.zeros((4, 4)), np.zeros(4)])
    start = np.array([[1.0] * 4, [2.0] * 4], "float32")
    outputs, _, lengths = decoder(start, initial_state=np.zeros((2, 4), "float32"))
    np.testing.assert_array_equal(numpy(outputs.sample_id)[0][..., 0], [[2, 4], [4, 8]])
    np.testing.assert_array_equal(numpy(lengths)[0], [2, 2])


def test_a_custom_sampler_is_its_functions():
    def initialize(inputs, scale):
        return ops.zeros((2,), "bool"), inputs * scale

    sampler = CustomSampler(
        initialize,
        lambda time, outputs, state: outputs,
        lambda time, outputs, state, sample_ids: (ops.ones((2,), "bool"), sample_ids, state),
        sample_ids_shape=[4],
        sample_ids_dtype="float32",
    )
    decoder = BasicDecoder(layers.SimpleRNNCell(4), sampler)
    outputs, state, lengths = decoder(
        np.ones((2, 4), "float32"), initial_state=np.zeros((2, 4), "float32"), scale=np.float32(1)
    )
    np.testing.assert_array_equal(*numpy(outputs.sample_id[:, 0], state))
    np.testing.assert_array_equal(numpy(lengths)[0], [1, 1])
    assert decoder.output_size == ((4,), (4,))


@keras.saving.register_keras_serializable(package="tests")
def double(x):
    return 2 * x


@pytest.mark.once
@pytest.mark.parametrize(
    "sampler",
    [
        TrainingSampler(time_major=True),
        ScheduledEmbeddingTrainingSampler(rising, seed=1, scheduling_seed=2, embedding_fn=layers.Embedding(3, 4)),
        ScheduledOutputTrainingSampler(keras.optimizers.schedules.ExponentialDecay(1.0, 2, 0.5), next_inputs_fn=double),
        ScheduledOutputTrainingSampler([0.25, 0.5]),
        GreedyEmbeddingSampler(double),
        SampleEmbeddingSampler(softmax_temperature=0.5, seed=3),
        InferenceSampler(double, [4], "float32", double),
        CustomSampler(double, double, double, [2], "float32"),
    ],
    ids=lambda sampler: type(sampler).__name__,
)
def test_a_sampler_can_be_saved(sampler):
    config = keras.saving.serialize_keras_object(sampler)
    loaded = keras.saving.deserialize_keras_object(config)
    assert isinstance(loaded, Sampler) and type(loaded) is type(sampler)
    assert keras.saving.serialize_keras_object(loaded)["config"] == config["config"]


@pytest.mark.once
def test_a_function_that_loading_could_not_find_is_refused():
    with pytest.raises(UsageError, match="Expected embedding_fn to be a layer or registered"):
        GreedyEmbeddingSampler(lambda ids: ids).get_config()


BAD = {
    "Expected start_tokens. Received: start_tokens=None": lambda: GREEDY().initialize(TABLE, end_token=1),
    "Expected end_token. Received: end_token=None": lambda: GREEDY().initialize(TABLE, np.array([1])),
    "Expected start_tokens to be a vector": lambda: GREEDY().initialize(TABLE, np.array([[1]]), 1),
    "Expected end_token to be a scalar": lambda: GREEDY().initialize(TABLE, np.array([1]), np.array([1])),
    "Expected start_tokens in a vocabulary of 3. Received: start_tokens=3": lambda: GREEDY().initialize(
        TABLE, np.array([3]), 1
    ),
    "Expected end_token in a vocabulary of 3. Received: end_token=-1": lambda: GREEDY().initialize(TABLE, np.array([1]), -1),
    "Expected start_tokens for at least one row": lambda: GREEDY().initialize(TABLE, np.zeros(0, "int32"), 1),
    "Expected embedding, since GreedyEmbeddingSampler": lambda: GREEDY().initialize(None, np.array([1]), 1),
    "Expected embedding to be a matrix": lambda: GREEDY().initialize(TABLE[0], np.array([1]), 1),
    "Expected embedding_fn to be callable": lambda: GREEDY(3),
    "Expected initialize before batch_size": lambda: GREEDY().batch_size,
    "softmax_temperature of at least 1e-06": lambda: SampleEmbeddingSampler(softmax_temperature=0.0),
    "Expected sampling_probability in 0..1": lambda: SCHEDULED(1.5),
    "Expected sampling_probability to be a scalar, a vector": lambda: SCHEDULED(np.ones((1, 1), "float32")),
    "Expected embedding, since ScheduledEmbedding": lambda: SCHEDULED(0.5).initialize(INPUTS),
    "Expected next_inputs_fn to be callable": lambda: ScheduledOutputTrainingSampler(0.5, next_inputs_fn=3),
}


@pytest.mark.parametrize("message", BAD)
def test_bad_input_is_one_clear_error(message):
    with pytest.raises(UsageError, match=message):
        BAD[message]()
