"""Drawing: the tokens of a NumPy twin on every backend, truncation by its definitions, seeds, streams."""

import functools

import numpy as np
import pytest
from keras import ops

from decode.table_model import END, START, TableModel, oracle_model, padded, tables
from k3seq import backend
from k3seq.decode import Context, MinP, Sample, Temperature, TopK, TopP
from k3seq.errors import UsageError
from oracles import sequences

ROWS, STEPS, VOCABULARY, SAMPLES = 4, 6, 6, 2
INPUTS = tables(np.random.default_rng(1), ROWS, VOCABULARY)
KEEP = {
    "top-k": ((TopK(2),), sequences.top_k(2)),
    "top-p": ((TopP(0.8),), sequences.top_p(0.8)),
    "min-p": ((MinP(0.3),), sequences.min_p(0.3)),
}


@functools.cache
def sampler(name):
    return Sample(TableModel(), STEPS, START, END, processors=[Temperature(1.3), *KEEP[name][0]], samples=SAMPLES)


def twin(keep, seed):
    """Tokens (b, k, t) and scores (b, k) by the definition."""
    rules = sequences.Rules(temperature=1.3)
    tokens, scores = [], []
    for row in range(ROWS * SAMPLES):
        model = oracle_model(INPUTS, row // SAMPLES)
        drawn = sequences.draw(model, rules, STEPS, seed, row, keep)
        tokens.append(padded(drawn, STEPS))
        scores.append(sum(sequences.token_log_probabilities(model, rules, drawn[:i])[t] for i, t in enumerate(drawn)))
    return np.reshape(tokens, (ROWS, SAMPLES, STEPS)), np.reshape(scores, (ROWS, SAMPLES))


@pytest.mark.parametrize("name", KEEP)
def test_the_same_seed_draws_the_tokens_of_the_definition(name):
    for seed in range(3):
        found = sampler(name)(INPUTS, seed)
        tokens, scores = twin(KEEP[name][1], seed)
        np.testing.assert_array_equal(found.tokens, tokens)
        np.testing.assert_allclose(found.scores, scores, rtol=2e-5)
        assert (found.lengths == (np.cumsum(tokens == END, axis=-1) == 0).sum(axis=-1)).all()


@pytest.mark.once
def test_other_seeds_and_truncations_draw_other_tokens():
    drawn = {(name, seed): twin(KEEP[name][1], seed)[0].tobytes() for name in KEEP for seed in range(2)}
    assert len(set(drawn.values())) == len(drawn)


def test_a_row_is_drawn_alike_alone_and_after_others_were_exchanged():
    other = tables(np.random.default_rng(2), ROWS, VOCABULARY)
    mixed = {name: np.concatenate([INPUTS[name][:1], other[name][1:]]) for name in INPUTS}
    one, two = sampler("top-p")(INPUTS, 5).tokens, sampler("top-p")(mixed, 5).tokens
    np.testing.assert_array_equal(one[0], two[0])
    assert (one[1:] != two[1:]).any()


def test_a_stream_yields_the_tokens_of_the_whole_draw_and_compiles_once():
    whole = sampler("top-k")(INPUTS, 3).tokens.reshape(ROWS * SAMPLES, STEPS)
    before = None
    for _ in range(2):
        streamed = np.stack(list(sampler("top-k").stream(INPUTS, 3)), axis=1)
        np.testing.assert_array_equal(streamed, whole[:, : streamed.shape[1]])
        assert (whole[:, streamed.shape[1] :] == END).all()
        assert before in (None, sampler("top-k").compilations())
        before = sampler("top-k").compilations()


EQUAL = np.log(np.array([[0.1, 0.3, 0.3, 0.3]], "float32"))


@pytest.mark.parametrize(
    ("processor", "kept"),
    [(TopK(2), [1, 2]), (TopK(9), [0, 1, 2, 3]), (TopP(0.5), [1, 2]), (TopP(1.0), [0, 1, 2, 3]), (MinP(0.5), [1, 2, 3])],
)
def test_of_equal_tokens_the_lower_ids_stay(processor, kept):
    context = Context(np.zeros((1, 3), "int32"), np.int32(0), END)
    found = ops.convert_to_numpy(backend.compiled(lambda logits: processor(logits, context))(EQUAL))
    assert np.flatnonzero(np.isfinite(found[0])).tolist() == kept


@pytest.mark.parametrize(
    ("make", "value"),
    [(Temperature, -1.0), (Temperature, 0.0), (TopP, 0.0), (TopP, 1.1), (MinP, -0.1), (MinP, float("nan")), (TopK, 0)],
)
def test_a_value_out_of_range_is_refused(make, value):
    with pytest.raises(UsageError, match=rf"^Expected .*Received: \w+={value}$|^Expected .*Received: {value}$"):
        make(value)


def test_fewer_than_one_sample_is_refused():
    with pytest.raises(UsageError, match="samples=0"):
        Sample(TableModel(), STEPS, samples=0)
