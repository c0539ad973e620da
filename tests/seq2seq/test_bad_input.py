"""Bad input is one error of one line, the same on every backend, also through the calls of Keras layers and models."""

import functools

import keras
import numpy as np
import pytest

from decode.table_model import END, START, TableModel, tables
from k3seq import decode
from k3seq.errors import UsageError
from k3seq.seq2seq import (
    AttentionWrapper,
    BasicDecoder,
    BeamSearchDecoder,
    GreedyEmbeddingSampler,
    LuongAttention,
    SampleEmbeddingSampler,
    ScheduledEmbeddingTrainingSampler,
    TrainingSampler,
)

ROWS, STEPS, UNITS = 2, 4, 3
INPUTS = tables(np.random.default_rng(0), ROWS, 6)
TOKENS = dict(max_steps=STEPS, start=START, end=END)


class Forgetful(TableModel):
    def step(self, tokens, state):
        logits, state = super().step(tokens, state)
        return logits, {"place": state["place"]}


def by_beams(model=None, source=INPUTS, width=2, **options):
    return lambda: decode.beam_search(model or TableModel(), source, width, **TOKENS | options)


def empty(row):
    lengths = np.full((ROWS,), 3, "int32")
    lengths[row] = 0
    return INPUTS | {"source_lengths": lengths}


EMBEDDING = np.zeros((5, UNITS), "float32")
MEMORY = np.zeros((ROWS, STEPS, UNITS), "float32")


def zeros(rows=ROWS):
    return [np.zeros((rows, UNITS), "float32")] * 2


def cell():
    return keras.layers.LSTMCell(UNITS, kernel_initializer="zeros", recurrent_initializer="zeros")


class Attending(keras.Model):
    """TFA's way, so that what is wrong is found inside the call of a model."""

    def __init__(self):
        super().__init__()
        self.mechanism = LuongAttention(UNITS)
        self.wrapper = AttentionWrapper(cell(), self.mechanism)
        self.decoder = BasicDecoder(self.wrapper, TrainingSampler())

    def call(self, inputs):
        memory, lengths, steps = inputs
        self.mechanism.setup_memory(memory, lengths)
        return self.decoder(steps, initial_state=self.wrapper.get_initial_state())[0].rnn_output


@functools.cache
def attending():
    model = Attending()
    model([MEMORY, np.array([4, 1]), MEMORY])  # builds it: while Keras does that, it tells of errors in its own way
    return model


def beams(width=3, end_token=4, steps=STEPS):
    decoder = BeamSearchDecoder(cell(), width, output_layer=keras.layers.Dense(5), maximum_iterations=steps)
    return decoder(EMBEDDING, start_tokens=np.array([0, 1]), end_token=end_token, initial_state=zeros(ROWS * width))


def greedy(end_token):
    sampler = GreedyEmbeddingSampler()
    decoder = BasicDecoder(cell(), sampler, keras.layers.Dense(5), maximum_iterations=STEPS)
    return decoder(EMBEDDING, start_tokens=np.array([0, 1]), end_token=end_token, initial_state=zeros())


def trained(initial_state, steps=STEPS, wrapped=False):
    inner = AttentionWrapper(cell(), LuongAttention(UNITS, memory=MEMORY)) if wrapped else cell()
    return BasicDecoder(inner, TrainingSampler())(np.zeros((ROWS, steps, UNITS), "float32"), initial_state=initial_state)


REFUSED = {
    "end token, decode": (by_beams(end=6), "Expected start and end tokens in a vocabulary of 6. Received: start=0, end=6"),
    "end token, greedy": (lambda: greedy(5), "Expected end_token in a vocabulary of 5. Received: end_token=5"),
    "end token, beams": (lambda: beams(end_token=5), "Expected end_token in a vocabulary of 5. Received: end_token=5"),
    "width, decode": (by_beams(width=7), "Expected beam_width of at most the vocabulary of 6. Received: beam_width=7"),
    "width, beams": (
        lambda: beams(6, steps=1),
        "Expected a beam_width that a vocabulary of 5 and 1 steps can fill. Received: beam_width=6",
    ),
    "empty row, decode": (by_beams(source=empty(1)), "Expected source lengths in 1..3. Received: 0 at row 1"),
    "empty row, attention": (
        lambda: attending()([MEMORY, np.array([4, 0]), MEMORY]),
        "Expected memory_sequence_length in 1..4. Received: 0 at row 1",
    ),
    "zero length, decode": (
        by_beams(source=INPUTS | {"source": np.zeros((ROWS, 0), "int32")}),
        "Expected a source of shape (batch, steps) with at least one row and step. Received: shape (2, 0)",
    ),
    "zero length, memory": (
        lambda: attending()([MEMORY[:, :0], np.array([4, 4]), MEMORY]),
        "Expected memory of at least one step. Received: 0 steps",
    ),
    "zero length, inputs": (lambda: trained(zeros(), 0), "Expected inputs of at least one step. Received: 0 steps"),
    "zero length, results": (by_beams(max_steps=0), "Expected max_steps to be an integer of at least 1. Received: max_steps=0"),
    "state, decode": (
        by_beams(Forgetful()),
        "Expected step to return a state of the structure that it was given. Received: another one",
    ),
    "state, decoder": (
        lambda: trained(zeros()[:1]),
        "Expected initial_state of 2 tensors, as the cell's. Received: 1 tensor",
    ),
    "state, attention": (
        lambda: trained(zeros(), wrapped=True),
        "Expected state to be an AttentionWrapperState with a memory, as get_initial_state gives. Received: list of 2 parts",
    ),
    "a limit of text": (
        lambda: BasicDecoder(cell(), GreedyEmbeddingSampler(), maximum_iterations="3"),
        "Expected maximum_iterations to be an integer of at least 0. Received: maximum_iterations='3'",
    ),
    "a fractional limit": (
        lambda: BeamSearchDecoder(cell(), 2, maximum_iterations=1.5),
        "Expected maximum_iterations to be an integer of at least 0. Received: maximum_iterations=1.5",
    ),
    "a temperature of text": (
        lambda: SampleEmbeddingSampler(softmax_temperature="1"),
        "Expected softmax_temperature to be a number or an array of numbers. Received: softmax_temperature='1'",
    ),
    "a vector of temperatures": (
        lambda: SampleEmbeddingSampler(softmax_temperature=[1.0, 2.0]),
        "Expected softmax_temperature to be a scalar. Received: shape (2,)",
    ),
    "a probability of text": (
        lambda: ScheduledEmbeddingTrainingSampler("0.5"),
        "Expected sampling_probability to be a number or an array of numbers. Received: sampling_probability='0.5'",
    ),
    "a fractional seed": (
        lambda: SampleEmbeddingSampler(seed=1.5),
        "Expected seed to be an integer in 0..2**64-1. Received: seed=1.5",
    ),
    "prefix, decode": (
        by_beams(prefix=[3] * 5),
        "Expected a prefix of at most max_steps=4 tokens. Received: 5 at row 0",
    ),
}


@pytest.mark.parametrize("case", REFUSED)
def test_bad_input_is_refused_in_one_line(case):
    refused, message = REFUSED[case]
    with pytest.raises(UsageError) as raised:
        refused()
    assert str(raised.value) == message


def test_the_same_calls_with_good_input_are_answered():
    assert by_beams()().tokens.shape == (ROWS, 2, STEPS)
    assert attending()([MEMORY, np.array([4, 1]), MEMORY]).shape == (ROWS, STEPS, UNITS)
    assert trained(zeros())[0].rnn_output.shape == (ROWS, STEPS, UNITS)
