"""Arithmetic problems: symbols, results, seeds, blanks, records and ragged batches."""

import itertools
import operator
import re

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from k3seq.data import arithmetic
from k3seq.data.arithmetic import BLANK, SEPARATOR, STOP, VOCABULARY, Problem, problems
from k3seq.errors import DataError, UsageError
from k3seq.random.bits import Stream

pytestmark = pytest.mark.once

SAMPLE = Problem("x=-12,y=24", "y+x", "12")


def solved(problem):
    """The result of a problem, read from its text."""
    x, y = map(int, re.fullmatch(r"x=(-?\d+),y=(-?\d+)", problem.defs).groups())
    left, symbol, right = problem.op
    apply = {"+": operator.add, "-": operator.sub, "*": operator.mul}[symbol]
    return x, y, apply({"x": x, "y": y}[left], {"x": x, "y": y}[right])


def test_the_vocabulary_has_twenty_symbols_and_the_first_three_have_names():
    assert "".join(VOCABULARY) == " :|xy=,+-*0123456789" and len(VOCABULARY) == 20
    assert (VOCABULARY[BLANK], VOCABULARY[SEPARATOR], VOCABULARY[STOP]) == (" ", ":", "|")


def test_encoding_gives_the_ids_of_the_symbols():
    assert arithmetic.encode("x=-12").tolist() == [3, 5, 8, 11, 12]
    assert arithmetic.encode("").dtype == np.int32


@given(st.text(alphabet="".join(VOCABULARY)))
def test_decoding_undoes_encoding(text):
    assert arithmetic.decode(arithmetic.encode(text)) == text


def test_an_unknown_character_or_id_is_named_with_its_position():
    with pytest.raises(DataError, match=r"Received: 'z' at position 2"):
        arithmetic.encode("x=z")
    for unknown in (20, -1, "x", 1.5):
        with pytest.raises(DataError, match=f"Expected ids in 0..19. Received: {unknown!r} at position 1"):
            arithmetic.decode([3, unknown])
    with pytest.raises(UsageError, match="Expected text to be a str. Received: b'x=' of type bytes"):
        arithmetic.encode(b"x=")


def test_every_result_is_right_and_every_value_in_range():
    drawn = problems(2000, 100, seed=1)
    for problem in drawn:
        x, y, result = solved(problem)
        assert -99 <= x < 100 and -99 <= y < 100 and int(problem.res) == result
    assert {problem.op for problem in drawn} == {a + o + b for o in "+-*" for a, b in ("xy", "yx")}
    assert min(solved(problem)[2] for problem in drawn) < 0 < max(solved(problem)[2] for problem in drawn)


def test_both_ends_of_the_range_are_drawn():
    values = {value for problem in problems(500, 3, seed=1) for value in solved(problem)[:2]}
    assert values == {-2, -1, 0, 1, 2}


def test_a_seed_gives_the_same_problems_and_another_gives_others():
    assert problems(50, 100, 1) == problems(50, 100, 1)
    assert problems(50, 100, 1) != problems(50, 100, 2)


def test_numbers_come_from_the_stream_and_so_are_the_same_everywhere():
    stream = Stream(9, "arithmetic")
    x, y = stream.integers(-99, 100, (2, 4)).tolist()
    assert [solved(problem)[:2] for problem in problems(4, 100, 9)] == list(zip(x, y, strict=True))


@pytest.mark.parametrize("count", [10, 53, 54])
def test_distinct_problems_are_distinct_up_to_the_last_one(count):
    # max_val 2: 3 values for each number, 3 operators, 2 orders: 54 problems.
    drawn = problems(count, 2, seed=5, distinct=True)
    assert len(set(drawn)) == len(drawn) == count
    assert all(int(problem.res) == solved(problem)[2] for problem in drawn)
    assert len(set(problems(count, 2, seed=5))) < count


@pytest.mark.parametrize(
    "arguments, words",
    [
        ({"count": -1}, "count=-1"),
        ({"max_val": 1}, "at least 2.* Received: max_val=1"),
        ({"operators": "+/"}, "operators='\\+/'"),
        ({"operators": ""}, "operators=''"),
        ({"count": 55, "max_val": 2, "distinct": True}, "at most 54 distinct"),
    ],
)
def test_impossible_requests_are_refused(arguments, words):
    with pytest.raises(UsageError, match=words):
        problems(**{"count": 1, "max_val": 10, "seed": 0, **arguments})


def test_held_out_problems_are_not_among_the_training_ones():
    drawn = problems(300, 3, seed=2)
    assert len(set(drawn)) < len(drawn)  # or the next lines would prove nothing
    train, held = arithmetic.split(drawn, 20, seed=1)
    assert len(held) == len(set(held)) == 20 and not set(held) & set(train)
    assert set(held) | set(train) == set(drawn)
    assert train == [problem for problem in drawn if problem not in held]
    assert arithmetic.split(drawn, 20, seed=2)[1] != held


def test_holding_out_everything_is_refused():
    with pytest.raises(UsageError, match="held_out=1"):
        arithmetic.split([SAMPLE, SAMPLE], 1)


def test_pairs_are_the_text_and_its_result():
    assert arithmetic.pairs([SAMPLE]) == [("x=-12,y=24:y+x", "12")]


def test_features_follow_the_definition():
    enc, dec, tgt = arithmetic.features([SAMPLE, Problem("x=1,y=2", "x-y", "-1")], Stream(0))
    assert [arithmetic.decode(row) for row in enc] == ["x=-12,y=24:y+x:", "x=1,y=2:x-y:"]
    assert [arithmetic.decode(row) for row in tgt] == ["12|", "-1|"]
    assert [len(row) for row in dec] == [3, 3]
    for row, full in zip(dec, tgt, strict=True):
        assert all(a in (BLANK, b) for a, b in zip(row, full, strict=True))
    assert BLANK not in np.concatenate(tgt)


def test_blanks_are_drawn_half_as_often_as_there_are_tokens_with_repetition():
    batch = problems(4000, 100, seed=3)
    _, dec, tgt = arithmetic.features(batch, Stream(1))
    blanked = np.mean(np.concatenate(dec) == BLANK)
    # n/2 draws out of n with repetition leave (1 - 1/n)^(n/2) ~ exp(-1/2) untouched; without repetition it would be a half.
    assert abs(blanked - (1 - np.exp(-0.5))) < 0.01
    for single in itertools.islice(zip(batch, tgt, strict=True), 20):
        row = arithmetic.features([single[0]], Stream(2))[1][0]
        assert (row == BLANK).sum() <= len(single[1]) // 2


def test_a_problem_equals_that_of_its_record():
    example = arithmetic.to_example(SAMPLE)
    assert {name: array.dtype for name, array in example.items()} == dict.fromkeys(("defs", "op", "res"), np.dtype(np.int32))
    assert arithmetic.from_example(example) == SAMPLE
    with pytest.raises(DataError, match="Expected fields defs, op, res. Received: defs, op"):
        arithmetic.from_example({name: example[name] for name in ("defs", "op")})


def test_ragged_rows_are_values_and_splits():
    values, splits = arithmetic.ragged([[3, 4], [], [5]])
    assert values.tolist() == [3, 4, 5] and splits.tolist() == [0, 2, 2, 3]
    assert values.dtype == np.int32 and splits.dtype == np.int64
    assert arithmetic.ragged([])[1].tolist() == [0]


def test_ragged_batches_hold_every_problem_in_order():
    drawn = problems(12, 100, seed=4)
    batches = list(arithmetic.ragged_batches(map(arithmetic.to_example, drawn), 5, seed=1))
    assert [len(dense) for _, dense in batches] == [5, 5, 2]
    seen = []
    for (enc, enc_splits, dec, dec_splits, tgt, tgt_splits), dense in batches:
        assert {enc.dtype, dec.dtype, tgt.dtype, dense.dtype} == {np.dtype(np.int32)}
        assert dec_splits.tolist() == tgt_splits.tolist() and len(dec) == len(tgt)
        for row, full in enumerate(dense):
            target = tgt[tgt_splits[row] : tgt_splits[row + 1]]
            assert full[: len(target)].tolist() == target.tolist() and not full[len(target) :].any()
            text = arithmetic.decode(enc[enc_splits[row] : enc_splits[row + 1]]) + arithmetic.decode(target)
            seen.append(text)
        assert dense.shape[1] == np.diff(tgt_splits).max()
    assert seen == [f"{p.defs}:{p.op}:{p.res}|" for p in drawn]


def test_each_epoch_blanks_other_positions_and_a_seed_repeats_them():
    examples = [arithmetic.to_example(problem) for problem in problems(10, 100, seed=4)]

    def blanks(**chosen):
        return [x[2].tolist() for x, _ in arithmetic.ragged_batches(examples, 5, **chosen)]

    assert blanks(seed=1, epoch=0) == blanks(seed=1, epoch=0)
    assert blanks(seed=1, epoch=0) != blanks(seed=1, epoch=1)
    assert blanks(seed=1, epoch=0) != blanks(seed=2, epoch=0)


def test_a_short_last_batch_can_be_left_out():
    examples = [arithmetic.to_example(SAMPLE)] * 7
    assert len(list(arithmetic.ragged_batches(examples, 5, 0, drop_remainder=True))) == 1
    with pytest.raises(UsageError, match="batch_size=0"):
        next(arithmetic.ragged_batches(examples, 0, 0))
