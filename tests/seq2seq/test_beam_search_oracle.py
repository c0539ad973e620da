"""TFA's beam search against plain NumPy: all sequences where the beams suffice, a narrow search, ties."""

from typing import Any, NamedTuple

import keras
import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from keras import ops

import golden
from k3seq import backend as backends
from k3seq.seq2seq.beam_search_decoder import BeamSearchDecoder
from oracles import beam


class Sums(NamedTuple):
    """The state of a `Walker`; beams with a field `alignments` can be penalised for what they leave out."""

    h: Any
    alignments: Any


class Walker(keras.layers.Layer):
    """A cell whose logits depend on all tokens so far, and whose alignments are a softmax of its state."""

    units, size, source = 5, 3, 4
    output_size, state_size = 3, Sums(5, 4)

    def build(self, inputs_shape):
        self.out = self.add_weight(name="out", shape=(self.units, self.size))
        self.look = self.add_weight(name="look", shape=(self.units, self.source))

    def call(self, inputs, state, training=None):
        h = ops.tanh(1.5 * state.h + inputs)
        return 2.0 * h @ ops.convert_to_tensor(self.out), Sums(h, ops.softmax(h @ ops.convert_to_tensor(self.look)))

    def advance(self, embedding):
        """The same as a function of one hypothesis, in float64."""
        out, look = (ops.convert_to_numpy(w).astype("f8") for w in (self.out, self.look))

        def step(token, h):
            h = np.tanh(1.5 * h + embedding[token].astype("f8"))
            return 2.0 * h @ out, h, np.exp(beam.log_softmax(h @ look))

        return step


def start(rows, width, units=5, source=4):
    return Sums(np.zeros((rows * width, units), "float32"), np.zeros((rows * width, source), "float32"))


@pytest.fixture(scope="module")
def searches():
    """`search(width)` -> (cell, compiled function of an embedding (3, 5)); two rows, four steps, both penalties."""
    made = {}

    def search(width):
        if width not in made:
            cell = Walker()
            cell.build((None, 5))
            options = {"length_penalty_weight": 0.8, "coverage_penalty_weight": 0.3, "maximum_iterations": 4}
            decoder = BeamSearchDecoder(cell, width, **options)

            def run(embedding):
                tokens = {"start_tokens": np.array([0, 2], "int32"), "end_token": 1}
                outputs, state, _ = decoder(embedding, initial_state=start(2, width), **tokens)
                steps = outputs.beam_search_decoder_output
                return outputs.predicted_ids, steps.scores, steps.parent_ids, steps.predicted_ids, state.lengths

            made[width] = cell, backends.compiled(run, cell.variables)
        return made[width]

    return search


def draw(cell, seed):
    rng = np.random.default_rng(seed)
    for weight in cell.weights:
        weight.assign(rng.normal(size=weight.shape))
    return rng.normal(size=(3, 5)).astype("float32")


SETTINGS = settings(
    max_examples=8,
    database=None,
    derandomize=True,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)


@SETTINGS
@given(seed=st.integers(0, 2**16))
def test_with_a_beam_for_every_sequence_it_finds_all_in_order(searches, seed):
    cell, run = searches(31)
    embedding = draw(cell, seed)
    predicted, scores, *_ = (ops.convert_to_numpy(value) for value in run(embedding))
    for row, first in enumerate((0, 2)):
        every = beam.all_sequences(cell.advance(embedding), np.zeros(5), first, 1, 4, 3, 0.8, 0.3, np.zeros(4))
        np.testing.assert_allclose(scores[row, -1], [score for score, *_ in every], rtol=1e-4, atol=1e-5)
        by_tokens = {tokens: score for score, tokens, _ in every}
        found = [tuple(tokens[: tokens.index(1) + 1] if 1 in tokens else tokens) for tokens in predicted[row].T.tolist()]
        assert set(found) == set(by_tokens)
        # in their order, but for neighbours nearer to each other than float32 tells
        np.testing.assert_allclose([by_tokens[tokens] for tokens in found], scores[row, -1], rtol=1e-4, atol=1e-5)


def nearest(scores, count):
    """The smallest distance between neighbours among the `count` best scores of each row, fills left out."""
    best = -np.sort(-scores, axis=-1)[..., :count]
    return np.min(np.abs(np.diff(best))[best[..., 1:] > -1e30])


@SETTINGS
@given(seed=st.integers(0, 2**16))
def test_a_narrow_search_equals_the_plain_one(searches, seed):
    cell, run = searches(3)
    embedding = draw(cell, seed)
    predicted, scores, parents, tokens, lengths = (ops.convert_to_numpy(value) for value in run(embedding))
    states = [np.zeros(5)] * 2
    wanted = beam.beam_search(cell.advance(embedding), states, [0, 2], 1, 3, 4, 0.8, 0.3, np.zeros((2, 4)))
    steps = len(wanted.scores)
    assert golden.relative_error(scores[:, :steps], np.swapaxes(wanted.scores, 0, 1)) < 1e-4
    if nearest(wanted.all_scores.reshape(steps, 2, -1), 4) > 1e-4:  # float32 tells all that matter apart
        np.testing.assert_array_equal(tokens[:, :steps], np.swapaxes(wanted.tokens, 0, 1))
        np.testing.assert_array_equal(parents[:, :steps], np.swapaxes(wanted.parents, 0, 1))
        assert lengths.tolist() == [[b.length for b in row] for row in wanted.hypotheses]


def test_of_equal_candidates_the_lowest_beam_and_token_comes_first(searches):
    cell, run = searches(3)
    draw(cell, 0)
    cell.out.assign(np.zeros((5, 3)))
    predicted, scores, parents, tokens, _ = (ops.convert_to_numpy(value) for value in run(np.zeros((3, 5), "float32")))
    wanted = beam.beam_search(cell.advance(np.zeros((3, 5))), [np.zeros(5)] * 2, [0, 2], 1, 3, 4, 0.8, 0.3, np.zeros((2, 4)))
    # Two steps: of candidates as long as each other, whose equal scores are rounded alike
    np.testing.assert_array_equal(tokens[:, :2], np.swapaxes(wanted.tokens, 0, 1)[:, :2])
    np.testing.assert_array_equal(parents[:, :2], np.swapaxes(wanted.parents, 0, 1)[:, :2])
    assert tokens[0, 0].tolist() == [0, 2, 1]  # the end token last: the penalty takes it for shorter
