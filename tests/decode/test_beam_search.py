"""Beam search against brute force over all sequences, and against a plain beam search in NumPy."""

import functools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from decode.table_model import END, START, TableModel, oracle_model, padded, tables
from k3seq.decode import (
    BeamSearch,
    CoveragePenalty,
    DiverseGroups,
    Forbid,
    LengthPenalty,
    MaxLength,
    MinLength,
    NoRepeat,
    RepetitionPenalty,
    Temperature,
)
from oracles import sequences
from oracles.sequences import Rules

ROWS, STEPS, VOCABULARY = 2, 4, 6
PROCESSORS = {
    "repetition": RepetitionPenalty,
    "temperature": Temperature,
    "least": MinLength,
    "most": MaxLength,
    "forbidden": Forbid,
    "ngram": NoRepeat,
    "length_power": LengthPenalty,
    "coverage_weight": CoveragePenalty,
}
SHAPES = {"everything": 5}  # steps where they are not STEPS
RULES = {
    "length": Rules(length_power=1.2),
    "short": Rules(length_power=-0.7),
    "coverage": Rules(coverage_weight=0.4),
    "least, most and forbidden": Rules(least=2, most=2, forbidden=(3, 0)),
    "bigrams": Rules(ngram=2),
    "repetition and temperature": Rules(repetition=1.7, temperature=0.8),
    "prefix": Rules(prefix=(-1, 4)),
    "everything": Rules(0.8, 0.3, 1.3, 1.5, 2, 4, (1,), 1, (5,)),
}


def processors(rules):
    default = Rules()
    return [make(getattr(rules, name)) for name, make in PROCESSORS.items() if getattr(rules, name) != getattr(default, name)]


@functools.cache
def search(name, width, n_best=5, diversity=()):
    """One compiled search for all examples of these rules."""
    made = [*processors(RULES[name]), *(DiverseGroups(*diversity) for _ in diversity[:1])]
    return BeamSearch(TableModel(), SHAPES.get(name, STEPS), START, END, processors=made, beam_width=width, n_best=n_best)


def decoded(name, inputs, *arguments):
    prefix = RULES[name].prefix
    return search(name, *arguments)(inputs, prefix or None)


def assert_equal(found, row, expected, steps):
    """The row's hypotheses are the expected [(tokens, score)], and where there are fewer, the others have no score."""
    n = len(expected)
    assert found.tokens[row, :n].tolist() == [padded(tokens, steps) for tokens, _ in expected]
    np.testing.assert_allclose(found.scores[row, :n], [score for _, score in expected], rtol=2e-5, atol=1e-5)
    assert found.lengths[row, :n].tolist() == [sum(token != END for token in tokens) for tokens, _ in expected]
    assert np.isneginf(found.scores[row, n:]).all() and (found.tokens[row, n:] == END).all()


@pytest.mark.parametrize("name", [name for name in RULES if name != "short"])
@settings(max_examples=2, deadline=None, database=None, derandomize=True)
@given(seed=st.integers(0, 2**32 - 1))
def test_an_exhaustive_search_equals_brute_force(name, seed):
    inputs, steps = tables(np.random.default_rng(seed), ROWS, VOCABULARY), SHAPES.get(name, STEPS)
    found = decoded(name, inputs, "all")
    for row in range(ROWS):
        assert_equal(found, row, sequences.brute_force(oracle_model(inputs, row), RULES[name], steps, 5), steps)


@pytest.mark.parametrize("name", ["length", "short", "everything"])
@settings(max_examples=5, deadline=None, database=None, derandomize=True)
@given(seed=st.integers(0, 2**32 - 1))
def test_a_narrow_search_equals_a_plain_one_that_stops_for_nothing(name, seed):
    inputs, steps = tables(np.random.default_rng(seed), 2 * ROWS, VOCABULARY), SHAPES.get(name, STEPS)
    found = decoded(name, inputs, 3, 3)
    for row in range(2 * ROWS):
        expected = sequences.beam_search(oracle_model(inputs, row), RULES[name], steps, 3, 3)
        assert_equal(found, row, expected, steps)


@settings(max_examples=5, deadline=None, database=None, derandomize=True)
@given(seed=st.integers(0, 2**32 - 1))
def test_diverse_groups_equal_a_plain_search_of_groups(seed):
    inputs = tables(np.random.default_rng(seed), 2 * ROWS, VOCABULARY)
    found = decoded("length", inputs, 4, 4, (2, 1.5))
    for row in range(2 * ROWS):
        expected = sequences.beam_search(oracle_model(inputs, row), RULES["length"], STEPS, 4, 4, 2, 1.5)
        assert_equal(found, row, expected, STEPS)


@pytest.mark.once
@pytest.mark.parametrize("name", RULES)
def test_each_rule_changes_what_is_best(name):
    """The negative control: an oracle that left the rule out would not agree."""
    rng, steps = np.random.default_rng(0), SHAPES.get(name, STEPS)
    models = [oracle_model(tables(rng, 1, VOCABULARY), 0) for _ in range(6)]
    best = [[sequences.brute_force(model, rules, steps, 5) for rules in (RULES[name], Rules())] for model in models]
    assert any([tokens for tokens, _ in ruled] != [tokens for tokens, _ in free] for ruled, free in best)


@pytest.mark.once
def test_diversity_changes_what_is_found():
    model = oracle_model(tables(np.random.default_rng(0), 1, VOCABULARY), 0)
    alike, diverse = (sequences.beam_search(model, Rules(), STEPS, 4, 4, 2, strength) for strength in (0.0, 1.5))
    assert len({tokens for tokens, _ in alike}) == 2 < len({tokens for tokens, _ in diverse})


def test_equal_candidates_are_taken_by_the_earlier_beam_and_the_lower_token():
    flat = tables(np.random.default_rng(0), 2 * ROWS, VOCABULARY)
    flat["table"][:] = 0
    expected = sequences.beam_search(oracle_model(flat, 0), RULES["length"], STEPS, 3, 3)
    assert_equal(decoded("length", flat, 3, 3), 0, expected, STEPS)
    assert [tokens for tokens, _ in expected] == [(END,), (0, END), (0, 0, END)]


def test_alignments_follow_the_hypothesis_they_belong_to():
    inputs = tables(np.random.default_rng(4), 2 * ROWS, VOCABULARY)
    found = decoded("length", inputs, 3, 3)
    for row in range(2 * ROWS):
        model = oracle_model(inputs, row)
        for hypothesis in range(3):
            tokens, length = found.tokens[row, hypothesis].tolist(), found.lengths[row, hypothesis]
            expected = np.zeros((STEPS, 3))
            for step in range(min(length + 1, STEPS)):
                expected[step] = model.attention(tuple(tokens[:step]))
            np.testing.assert_allclose(found.alignments[row, hypothesis], expected, rtol=1e-5)
