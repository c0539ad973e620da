"""Ranking with equal scores, minus infinity and the lowest finite number."""

import numpy as np
import pytest
from keras import ops

from k3seq.decode import Greedy, LengthPenalty, Temperature, TopP, penalties
from k3seq.decode.ranking import first_best, first_largest
from k3seq.errors import UsageError
from k3seq.random import categorical, key

LOWEST, NONE = float(np.finfo("float32").min), float("-inf")


@pytest.mark.parametrize("count", [3, 5])
def test_the_lowest_finite_number_ranks_before_minus_infinity(count):
    scores = np.array([[NONE, LOWEST, NONE, -1.0, LOWEST]], "float32")
    best, indices = (ops.convert_to_numpy(x) for x in first_best(ops.convert_to_tensor(scores), count))
    np.testing.assert_array_equal(indices[0], [3, 1, 4, 0, 2][:count])
    np.testing.assert_array_equal(best[0], [-1.0, LOWEST, LOWEST, NONE, NONE][:count])


def test_many_scores_are_ranked_in_chunks_with_the_same_result():
    scores = np.full((2, 1000), NONE, "float32")
    scores[0, 700:] = LOWEST
    scores[1, [3, 900]] = LOWEST, 1.0
    _, indices = first_best(ops.convert_to_tensor(scores), 2)
    np.testing.assert_array_equal(ops.convert_to_numpy(indices), [[700, 701], [900, 3]])


def test_the_first_of_the_largest_is_found_whatever_they_are():
    rows = np.array([[NONE, LOWEST, LOWEST], [NONE, NONE, NONE], [1.0, 2.0, 2.0]], "float32")
    np.testing.assert_array_equal(ops.convert_to_numpy(first_largest(ops.convert_to_tensor(rows))), [1, 0, 1])


def test_a_draw_never_takes_what_is_minus_infinity():
    logits = ops.convert_to_tensor(np.array([[NONE, LOWEST, NONE]], "float32"))
    assert ops.convert_to_numpy(categorical(key(0), logits)).tolist() == [1]


class Fixed:
    """The same logits at every step."""

    variables = ()

    def __init__(self, logits):
        self.logits = np.array(logits, "float32")

    def start(self, inputs):
        return {"none": ops.zeros_like(inputs["source"])}

    def step(self, tokens, state):
        return ops.broadcast_to(self.logits, (tokens.shape[0], len(self.logits))), state


def test_greedy_takes_the_only_token_that_is_left_also_with_the_lowest_logit():
    found = Greedy(Fixed([NONE, NONE, NONE, LOWEST]), 1, 0, 0)(np.zeros((1, 1), "int32"))
    assert found.tokens.tolist() == [[3]] and np.isfinite(found.scores).all()


@pytest.mark.parametrize("temperature", [1e-38, 1e-46, float("inf"), float("nan")])
def test_a_temperature_that_would_overflow_is_refused(temperature):
    with pytest.raises(UsageError, match="temperature (of at least 1e-06|to be a finite number)"):
        Temperature(temperature)


def test_the_lowest_temperature_gives_the_best_token():
    found = Greedy(Fixed([6e4, 6.1e4, -6e4]), 1, 0, 0, processors=[Temperature(1e-6)])(np.zeros((1, 1), "int32"))
    assert found.tokens.tolist() == [[1]] and found.scores.tolist() == [0.0]


def test_a_mass_that_float32_rounds_to_zero_leaves_one_token():
    kept = ops.convert_to_numpy(TopP(1e-46)(ops.convert_to_tensor([[0.0, 3.0, 1.0]]), None))
    assert kept.tolist() == [[NONE, 3.0, NONE]]


@pytest.mark.parametrize("power", [float("nan"), float("inf")])
def test_a_length_power_that_is_not_finite_is_refused(power):
    with pytest.raises(UsageError, match="power to be a finite number"):
        LengthPenalty(power)


@pytest.mark.parametrize("power", [1e3, -1e3])
def test_a_length_power_too_large_for_float32_is_refused(power):
    with pytest.raises(UsageError, match="length power that float32 holds at 9 steps"):
        LengthPenalty(power).bound(ops.convert_to_tensor([-1.0]), 1, 9)


@pytest.mark.once
def test_weights_that_are_not_finite_are_refused():
    for weight in (float("nan"), float("inf"), -1.0):
        with pytest.raises(UsageError, match="weight to be a number in"):
            penalties.CoveragePenalty(weight)
