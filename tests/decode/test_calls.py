"""Decoding in one call: what it returns, what it keeps, what it refuses on every backend alike."""

import gc
import weakref

import keras
import numpy as np
import pytest
from keras import ops

from decode.table_model import END, SOURCE, START, TableModel, oracle_model, padded, tables
from k3seq import decode
from k3seq.decode import (
    BeamSearch,
    CoveragePenalty,
    DiverseGroups,
    Ensemble,
    Forbid,
    Greedy,
    LengthPenalty,
    MaxLength,
    MinLength,
    NoRepeat,
    RepetitionPenalty,
)
from k3seq.errors import UsageError
from k3seq.models.lstm import LSTMSeq2Seq
from k3seq.random import initialize
from oracles import sequences

ROWS, STEPS, VOCABULARY = 4, 4, 6
INPUTS = tables(np.random.default_rng(8), ROWS, VOCABULARY)
TOKENS = dict(max_steps=STEPS, start=START, end=END)


@pytest.fixture(scope="module")
def model():
    return TableModel()


def test_a_beam_of_one_is_greedy(model):
    one, greedy = decode.beam_search(model, INPUTS, 1, **TOKENS), decode.greedy(model, INPUTS, **TOKENS)
    np.testing.assert_array_equal(one.tokens[:, 0], greedy.tokens)
    np.testing.assert_allclose(one.scores[:, 0], greedy.scores, rtol=1e-5)
    np.testing.assert_allclose(one.alignments[:, 0], greedy.alignments)
    assert greedy.alignments.shape == (ROWS, STEPS, SOURCE)


def test_greedy_keeps_the_rules_and_the_prefix_of_each_row(model):
    prefix = [[3], [4, 5], [], [3, -1, 1]]
    rules = [sequences.Rules(forbidden=(1,), ngram=1, least=2, prefix=tuple(ids)) for ids in prefix]
    made = (Forbid([1]), NoRepeat(1), MinLength(2))
    found = decode.greedy(model, INPUTS, processors=made, prefix=prefix, **TOKENS)
    for row in range(ROWS - 1):
        [(tokens, score)] = sequences.beam_search(oracle_model(INPUTS, row), rules[row], STEPS, 1, 1)
        assert found.tokens[row].tolist() == padded(tokens, STEPS)
        np.testing.assert_allclose(found.scores[row], score, rtol=1e-5)
    # What is asked for stands above what is forbidden.
    assert found.tokens[3, [0, 2]].tolist() == [3, 1] and np.isfinite(found.scores[3])


def test_where_nothing_is_allowed_the_result_ends_without_a_score(model):
    found = decode.greedy(model, INPUTS, processors=(MinLength(4), MaxLength(1)), **TOKENS)
    assert np.isneginf(found.scores).all() and (found.lengths == 1).all() and (found.tokens[:, 1:] == END).all()


def test_a_penalty_for_repetition_reads_the_tokens_so_far_and_no_fill():
    # Token 0 stands in the result, 1 does not; the end token fills what lies behind.
    context = decode.Context(ops.convert_to_tensor([[0, END, END]]), ops.convert_to_tensor(1), END)
    found = RepetitionPenalty(2.0)(ops.convert_to_tensor([[3.0, 3.0, 3.0, -3.0]]), context)
    assert ops.convert_to_numpy(found).tolist() == [[1.5, 3.0, 3.0, -3.0]]


def test_a_function_is_a_processor_whose_result_is_normalised_again(model):
    def halved(logits, context):
        return logits / 2

    found = decode.greedy(model, INPUTS, processors=(Forbid([1]), halved), **TOKENS)
    asked = decode.greedy(model, INPUTS, processors=(decode.Temperature(2.0), Forbid([1])), **TOKENS)
    np.testing.assert_allclose(found.scores, asked.scores, rtol=1e-6)
    assert np.abs(found.scores - decode.greedy(model, INPUTS, **TOKENS).scores).max() > 0.1


def test_what_was_compiled_is_found_again_and_goes_with_the_model():
    model = TableModel()
    for _ in range(2):
        for token in (1, 3):
            decode.greedy(model, INPUTS, processors=[Forbid([token])], **TOKENS)
        assert decode.compilations(model) == (0 if keras.backend.backend() == "torch" else 2)
    gone = weakref.ref(model)
    del model
    gc.collect()
    assert gone() is None


def test_a_trained_model_is_decoded_without_further_words():
    made = initialize(LSTMSeq2Seq(9, 9, embed_dim=4, units=4), seed=0)
    source = np.random.default_rng(0).integers(3, 9, (2, 5)).astype("int32")
    best = decode.beam_search(made, source, 3)
    assert best.tokens.shape == (2, 3, 20) and best.alignments is None
    assert (np.diff(best.scores, axis=1) <= 0).all()


class Limited(TableModel):
    """Keeps a tensor of as many steps as it is given."""

    target_limit = 3

    def start(self, inputs, steps):
        return super().start(inputs) | {"kept": ops.zeros((inputs["source"].shape[0], steps))}


def test_a_model_gets_the_number_of_steps_and_its_limit_is_kept():
    assert decode.greedy(Limited(), INPUTS, start=START, end=END).tokens.shape == (ROWS, 3)
    with pytest.raises(UsageError, match="at most 3, the limit of the model. Received: max_steps=4"):
        decode.greedy(Limited(), INPUTS, **TOKENS)


def ensemble_of(inputs, rows, mean, weights):
    """The oracle's ensemble of the models of two rows."""
    models = [oracle_model(inputs, row) for row in rows]

    def logits(tokens):
        logs = np.stack([sequences.log_softmax(model.logits(tokens)) for model in models])
        return np.log(weights @ np.exp(logs)) if mean == "probabilities" else weights @ logs

    def attention(tokens):
        return sum(weight * model.attention(tokens) for weight, model in zip(weights, models, strict=True))

    return sequences.Model(logits, attention, VOCABULARY, END, SOURCE)


class Reversed(TableModel):
    """A model of another class: it reads the tables of the row before."""

    def start(self, inputs):
        return super().start(inputs | {name: ops.roll(inputs[name], 1, axis=0) for name in ("table", "attention")})


@pytest.mark.parametrize("mean", ["probabilities", "log_probabilities"])
def test_an_ensemble_decodes_by_the_mean_of_its_members(mean):
    inputs = INPUTS | {"source_lengths": np.full((ROWS,), SOURCE, "int32")}
    found = decode.greedy(Ensemble([TableModel(), Reversed()], mean, weights=[3, 1]), inputs, **TOKENS)
    for row in range(ROWS):
        oracle = ensemble_of(inputs, (row, row - 1), mean, np.array([0.75, 0.25]))
        [(tokens, score)] = sequences.beam_search(oracle, sequences.Rules(), STEPS, 1, 1)
        assert found.tokens[row].tolist() == padded(tokens, STEPS)
        np.testing.assert_allclose(found.scores[row], score, rtol=2e-5)
        np.testing.assert_allclose(found.alignments[row, 0], oracle.attention(()), rtol=1e-5)
        alone = sequences.beam_search(oracle_model(inputs, row), sequences.Rules(), STEPS, 1, 1)
        assert score != pytest.approx(alone[0][1], rel=1e-3)


def test_a_beam_search_over_an_ensemble_equals_brute_force():
    inputs = INPUTS | {"source_lengths": np.full((ROWS,), SOURCE, "int32")}
    rules = sequences.Rules(length_power=0.8, coverage_weight=0.2, ngram=2)
    made = (LengthPenalty(0.8), CoveragePenalty(0.2), NoRepeat(2))
    ensemble = Ensemble([TableModel(), Reversed()], weights=[3, 1])
    found = decode.beam_search(ensemble, inputs, "all", processors=made, n_best=4, **TOKENS)
    for row in range(ROWS):
        oracle = ensemble_of(inputs, (row, row - 1), "probabilities", np.array([0.75, 0.25]))
        expected = sequences.brute_force(oracle, rules, STEPS, 4)
        assert found.tokens[row].tolist() == [padded(tokens, STEPS) for tokens, _ in expected]
        np.testing.assert_allclose(found.scores[row], [score for _, score in expected], rtol=2e-5)
        alone = sequences.brute_force(oracle_model(inputs, row), rules, STEPS, 4)
        assert [score for _, score in alone] != pytest.approx([score for _, score in expected], rel=1e-3)


class Without(TableModel):
    """Gives no alignments."""

    def start(self, inputs):
        return {name: leaf for name, leaf in super().start(inputs).items() if name != "alignments"}

    def step(self, tokens, state):
        logits, state = super().step(tokens, state)
        return logits, {name: leaf for name, leaf in state.items() if name != "alignments"}


class Forgetful(TableModel):
    def step(self, tokens, state):
        logits, state = super().step(tokens, state)
        return logits, {"place": state["place"]}


class Growing(TableModel):
    def step(self, tokens, state):
        logits, state = super().step(tokens, state)
        return logits, state | {"alignments": ops.concatenate([state["alignments"]] * 2, axis=1)}


class Unbatched(TableModel):
    def start(self, inputs):
        return super().start(inputs) | {"scale": ops.ones(())}


class Picky(TableModel):
    def check(self, inputs):
        if (inputs["source"] != 0).any():
            raise UsageError("Expected sources of zeros. Received: another one")


EMPTY = {name: value[:0] for name, value in INPUTS.items()}
REFUSED = {
    "the end token is outside the vocabulary": (dict(end=6), {}, "vocabulary of 6. Received: start=0, end=6"),
    "the width is over the vocabulary": (dict(beam_width=7), {}, "vocabulary of 6. Received: beam_width=7"),
    "the width is 0": (dict(beam_width=0), {}, "Received: beam_width=0"),
    "more results than beams": (dict(n_best=3), {}, "1..2. Received: n_best=3"),
    "no steps": (dict(max_steps=0), {}, "max_steps to be an integer of at least 1. Received: max_steps=0"),
    "no model": (dict(model={"a": 1}), {}, "Expected model with start, step, variables. Received: dict"),
    "a step of a half": (dict(max_steps=2.5), {}, "Received: max_steps=2.5"),
    "the groups do not divide the width": (dict(processors=[DiverseGroups(3)]), {}, "divide beam_width"),
    "too many hypotheses to try all": (dict(beam_width="all", max_steps=12), {}, "Received: 48828125 of 12 steps"),
    "a forbidden token is outside the vocabulary": (dict(processors=[Forbid([6])]), {}, "Received: 6"),
    "coverage without alignments": (dict(model=Without(), processors=[CoveragePenalty(0.1)]), {}, "carries alignments"),
    "the state loses a part": (dict(model=Forgetful()), {}, "structure"),
    "the state grows": (dict(model=Growing()), {}, r"here \(8, 3\) float32. Received: \(8, 6\) float32"),
    "the state has no batch": (dict(model=Unbatched()), {}, r"batch of 4. Received: \(\) float32"),
    "the batch is empty": ({}, dict(source=EMPTY), "at least one row"),
    "the inputs have no source": ({}, dict(source={"target": 1}), "key source"),
    "the model refuses its source": (
        dict(model=Picky()),
        dict(source=INPUTS | {"source": INPUTS["source"] + 1}),
        "another one",
    ),
    "a source is empty": (
        {},
        dict(source=INPUTS | {"source_lengths": np.array([1, 0, 1, 1], "int32")}),
        "source lengths in 1..3. Received: 0 at row 1",
    ),
    "the prefix is too long": ({}, dict(prefix=[3] * 5), "max_steps=4 tokens. Received: 5 at row 0"),
    "the prefix ends": ({}, dict(prefix=[[3], [END], [], []]), "Received: 2 at row 1"),
    "the prefix is outside the vocabulary": ({}, dict(prefix=[[3], [6], [], []]), "vocabulary of 6. Received: 6 at row 1"),
    "the prefix has other rows": ({}, dict(prefix=[[3], [4]]), "each of 4 rows, or one for all. Received: 2"),
    "the prefix is text": ({}, dict(prefix=["ab"] * 4), "token ids"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_it_is_refused(name):
    options, call, message = REFUSED[name]
    options = {"model": TableModel(), "beam_width": 2, **TOKENS} | options
    with pytest.raises(UsageError, match=message):
        BeamSearch(**options)(**{"source": INPUTS} | call)


@pytest.mark.parametrize("processor", [LengthPenalty(1.0), DiverseGroups(2)])
def test_what_is_for_beams_is_refused_elsewhere(processor):
    with pytest.raises(UsageError, match="called with"):
        Greedy(TableModel(), STEPS, processors=[processor])


@pytest.mark.parametrize(
    ("make", "value"),
    [(MinLength, -1), (MaxLength, 1.5), (NoRepeat, 0), (RepetitionPenalty, 0.0), (CoveragePenalty, -0.1), (DiverseGroups, 0)],
)
def test_a_value_out_of_range_is_refused(make, value):
    with pytest.raises(UsageError, match=f"^Expected .*{value}$"):
        make(value)


@pytest.mark.parametrize(
    ("members", "options", "message"),
    [
        ([], {}, "at least one model"),
        ([TableModel()], dict(mean="median"), "mean='median'"),
        ([TableModel()], dict(weights=[1, 2]), "each of 1 members"),
        ([TableModel()], dict(weights="lstm"), "weights to be a list of numbers. Received: weights='lstm'"),
        (None, {}, "members to be a list of models. Received: NoneType"),
        ([3], {}, "each member with start, step, variables. Received: int"),
    ],
)
def test_an_ensemble_that_cannot_be_is_refused(members, options, message):
    with pytest.raises(UsageError, match=message):
        Ensemble(members, **options)
