"""The decoding loop on a model whose answers can be read by eye."""

import keras
import numpy as np
import pytest
from keras import ops

from k3seq.decode import BeamSearch, Greedy
from k3seq.errors import UsageError

# Row r gives the logits after token r; 1 starts, 2 ends: 1 -> 3 -> 4 -> 2, and 5 -> 5 for ever.
NEXT = np.full((6, 6), -2.0, "float32")
NEXT[1, 3] = NEXT[3, 4] = NEXT[4, 2] = NEXT[5, 5] = 1.0


class Chain:
    """A model that follows `NEXT`; a source row that begins with 5 is led to 5 for ever."""

    variables = ()

    def start(self, inputs):
        return {"first": inputs["source"][:, 0], "fresh": ops.ones_like(inputs["source"][:, 0])}

    def step(self, tokens, state):
        tokens = ops.where(state["fresh"] * state["first"] == 5, 5, tokens)
        return ops.take(ops.convert_to_tensor(NEXT), tokens, axis=0), {**state, "fresh": ops.zeros_like(state["fresh"])}


def log_probability(token, following):
    row = NEXT[token].astype("float64")
    return row[following] - np.log(np.exp(row).sum())


def source(*first):
    return {"source": np.array(first, "int32")[:, None]}


def test_greedy_follows_the_best_token_to_the_end():
    decoded = Greedy(Chain(), max_steps=5)(source(0, 5))
    np.testing.assert_array_equal(decoded.tokens, [[3, 4, 2, 2, 2], [5, 5, 5, 5, 5]])
    np.testing.assert_array_equal(decoded.lengths, [2, 5])
    expected = [log_probability(1, 3) + log_probability(3, 4) + log_probability(4, 2), 5 * log_probability(5, 5)]
    np.testing.assert_allclose(decoded.scores, expected, rtol=1e-5)


def test_the_limit_cuts_and_no_end_token_is_invented():
    decoded = Greedy(Chain(), max_steps=2)(source(0))
    np.testing.assert_array_equal(decoded.tokens, [[3, 4]])
    np.testing.assert_array_equal(decoded.lengths, [2])


def test_equal_logits_give_the_lowest_id():
    class Flat(Chain):
        def step(self, tokens, state):
            return ops.stack([ops.convert_to_tensor([0.0, 0.0, 0.0, 7.0, 7.0, 7.0])] * tokens.shape[0]), state

    assert Greedy(Flat(), max_steps=1)(source(0)).tokens[0, 0] == 3


def test_a_row_that_has_ended_does_not_wait_for_nor_change_the_others():
    together, alone = Greedy(Chain(), max_steps=5)(source(5, 0, 5)), Greedy(Chain(), max_steps=5)(source(0))
    np.testing.assert_array_equal(together.tokens[1], alone.tokens[0])
    np.testing.assert_allclose(together.scores[1], alone.scores[0], rtol=1e-6)


def test_the_loop_ends_as_soon_as_every_row_has_ended():
    if keras.backend.backend() != "torch":
        pytest.skip("steps inside a compiled loop cannot be counted from Python; torch runs the same loop eagerly")
    taken = []

    class Counted(Chain):
        def step(self, tokens, state):
            taken.append(1)
            return super().step(tokens, state)

    Greedy(Counted(), max_steps=50)(source(0, 0))
    assert len(taken) == 3
    taken.clear()
    BeamSearch(Counted(), max_steps=50, beam_width=1)(source(0, 0))
    assert len(taken) == 3


def test_it_compiles_once_for_each_shape():
    decode = Greedy(Chain(), max_steps=4)
    for rows in (2, 3, 2, 3):
        decode(source(*[0] * rows))
    assert decode.compilations() == (0 if keras.backend.backend() == "torch" else 2)


@pytest.mark.parametrize("arguments", [{"max_steps": 0}, {"max_steps": 3, "end": -1}])
def test_arguments_out_of_range_are_refused(arguments):
    with pytest.raises(UsageError, match="Expected"):
        Greedy(Chain(), **arguments)


def test_an_end_token_outside_the_vocabulary_is_refused():
    with pytest.raises(UsageError, match="vocabulary of 6. Received: start=1, end=6"):
        Greedy(Chain(), max_steps=3, end=6)(source(0))
