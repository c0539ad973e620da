"""The oracle of beam search: against the golden vectors of TFA, and its search against looking at every sequence."""

import numpy as np
import pytest

import golden
from oracles import beam, beam_models

pytestmark = pytest.mark.once

FLOAT32, FLOAT64, PENALISED = 1e-5, 1e-10, 3e-7


def searched(stored, **changes):
    """The search of a golden case, with some of its parameters changed."""
    p = stored.params | changes
    advance, states, coverage = beam_models.model(stored)
    return beam.beam_search(
        advance,
        states,
        stored["in.start_tokens"],
        p["end_token"],
        p["beam_width"],
        p["maximum_iterations"],
        p["length_penalty_weight"],
        p["coverage_penalty_weight"],
        coverage if p["coverage_penalty_weight"] else None,
    )


def final(found, part):
    return np.array([[part(beam) for beam in row] for row in found.hypotheses])


def error(found, stored):
    """Largest relative error of scores and states of a search; infinity where an integer differs."""
    precision = stored.precisions[-1]
    steps = {"step_predicted_ids": found.tokens, "step_parent_ids": found.parents}
    integers = {name: np.swapaxes(value, 0, 1) for name, value in steps.items()}
    integers |= {"final.lengths": final(found, lambda b: b.length), "final.finished": final(found, lambda b: b.finished)}
    lengths = integers["final.lengths"].max(axis=1)
    sequences = beam.gather_tree(found.tokens, found.parents, lengths, stored.params["end_token"])
    integers["predicted_ids"] = np.swapaxes(sequences, 0, 1)
    if any(value.shape != stored[f"{precision}.{n}"].shape for n, value in integers.items()):
        return np.inf
    if any((value != stored[f"{precision}.{n}"]).any() for n, value in integers.items()):
        return np.inf
    scores = found.all_scores if stored.params["output_all_scores"] else found.scores
    floats = {"step_scores": np.swapaxes(scores, 0, 1), "final.log_probs": final(found, lambda b: b.log_probability)}
    first = 1 if "in.memory" in stored else 0
    floats |= {f"final.{n}": final(found, lambda b, i=i: b.state[first + i]) for i, n in enumerate("hc")}
    if "in.memory" in stored:
        floats["final.attention"] = final(found, lambda b: b.state[3])
        floats["final.alignments"] = final(found, lambda b: b.state[4])
    if stored.params["coverage_penalty_weight"]:
        floats["final.accumulated_attention_probs"] = final(found, lambda b: b.coverage)
    return max(golden.relative_error(value, stored[f"{precision}.{n}"]) for n, value in floats.items())


def tolerance(stored):
    if stored.precisions[-1] == "f32":
        return FLOAT32
    return PENALISED if stored.params["length_penalty_weight"] else FLOAT64


@pytest.mark.parametrize("id", golden.cases("beam_lstm") + golden.cases("beam_attention"))
def test_the_oracle_equals_tfa(id):
    stored = golden.case(id)
    assert error(searched(stored), stored) < tolerance(stored)


@pytest.mark.parametrize(
    "change", [{"length_penalty_weight": 0.0}, {"coverage_penalty_weight": 0.0}, {"end_token": 8}, {"beam_width": 2}], ids=str
)
def test_the_comparison_with_tfa_sees_a_difference(change):
    stored = golden.case("beam_attention__w3_lp0.6_cp0.2")
    assert error(searched(stored, **change), stored) > 1e-3


class Table:
    """A model over `size` tokens whose state is the sum of its tokens' rows: every prefix has different logits."""

    def __init__(self, seed, size=3, source=4):
        rng = np.random.default_rng(seed)
        self.tokens, self.out, self.source = (rng.normal(size=s) for s in ((size, 5), (5, size), (5, source)))

    def advance(self, token, state):
        state = np.tanh(1.5 * state + self.tokens[token])
        return 2.0 * state @ self.out, state, np.exp(beam.log_softmax(state @ self.source))


@pytest.mark.parametrize("length_weight, coverage_weight", [(0.0, 0.0), (0.8, 0.0), (0.0, 0.3), (1.2, 0.3)])
@pytest.mark.parametrize("seed", range(5))
def test_a_search_as_wide_as_all_sequences_finds_them_in_order(seed, length_weight, coverage_weight):
    table, steps, end = Table(seed), 4, 1
    every = beam.all_sequences(table.advance, np.zeros(5), 0, end, steps, 3, length_weight, coverage_weight, np.zeros(4))
    found = beam.beam_search(
        table.advance, [np.zeros(5)], [0], end, len(every), steps, length_weight, coverage_weight, np.zeros((1, 4))
    )
    assert len(every) == 1 + 2 + 4 + 8 + 16
    assert [b.tokens for b in found.hypotheses[0]] == [tokens for _, tokens, _ in every]
    np.testing.assert_allclose(found.scores[-1, 0], [score for score, _, _ in every], rtol=1e-12)
    np.testing.assert_allclose([b.log_probability for b in found.hypotheses[0]], [p for *_, p in every], rtol=1e-12)
    np.testing.assert_allclose(sum(np.exp(p) for *_, p in every), 1.0)
    other = beam.all_sequences(table.advance, np.zeros(5), 0, end, steps, 3, length_weight + 0.5, coverage_weight, np.zeros(4))
    assert np.abs(found.scores[-1, 0] - [score for score, *_ in other]).max() > 1e-3


def test_of_equal_candidates_the_lowest_beam_and_token_comes_first():
    found = beam.beam_search(lambda token, state: (np.zeros(4), None, None), [None], [0], 3, 3, 2)
    assert found.tokens[:, 0].tolist() == [[0, 1, 2], [0, 1, 2]]
    assert found.parents[:, 0].tolist() == [[0, 0, 0], [0, 0, 0]]
