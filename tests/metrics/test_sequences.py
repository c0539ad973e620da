"""Sequence measures against answers by hand and a plain edit distance."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from k3seq.errors import UsageError
from k3seq.metrics import edit_distance, error_rate, nearest, score, sequence_accuracy, token_accuracy

pytestmark = pytest.mark.once

TOKENS = st.lists(st.sampled_from([-2, -1, 0, 97, "a", "b"]), max_size=7)


def rows_of(tokens):
    """Rows of a hypothesis and one to three references."""
    sequence = st.lists(st.sampled_from(tokens), max_size=7)
    return st.lists(st.tuples(sequence, st.lists(sequence, min_size=1, max_size=3)), min_size=1, max_size=5)


def plain_distance(first, second):
    """Wagner and Fischer (1974), the whole table."""
    table = [[i + j for j in range(len(second) + 1)] for i in range(len(first) + 1)]
    for i, a in enumerate(first, 1):
        for j, b in enumerate(second, 1):
            table[i][j] = min(table[i - 1][j] + 1, table[i][j - 1] + 1, table[i - 1][j - 1] + (a != b))
    return table[-1][-1]


@given(TOKENS, TOKENS)
def test_the_edit_distance_is_that_of_the_plain_table(first, second):
    assert edit_distance(first, second) == plain_distance(first, second)


@pytest.mark.parametrize("first, second, edits", [("kitten", "sitting", 3), ([-1], [-2], 1), (["a"], [97], 1), ([], [1, 2], 2)])
def test_the_edit_distance_by_hand(first, second, edits):
    assert edit_distance(first, second) == edits


@pytest.mark.parametrize("tokens", [b"ab", None, 5, [1.5], [[1]], {1: 2}, [None]], ids=str)
def test_what_is_no_token_sequence_is_refused(tokens):
    for pair in ((tokens, "ab"), ("ab", tokens)):
        with pytest.raises(UsageError, match="Expected token sequences to be lists of int, lists of str, or str. Received: "):
            edit_distance(*pair)


def test_measures_by_hand():
    found = score([[1, 2, 3], [1, 3], [4, 5, 6]], [[[1, 2, 3]], [[1, 2, 3]], [[4, 5]]])
    # Row 2 lacks the 2 (1 edit, and the 3 is in the wrong position); row 3 has a surplus 6.
    assert {
        name: found[name] for name in ("sequences", "correct_sequences", "tokens", "edits", "positions", "correct_positions")
    } == {
        "sequences": 3,
        "correct_sequences": 1,
        "tokens": 8,
        "edits": 2,
        "positions": 9,
        "correct_positions": 6,
    }
    assert found["sequence_accuracy"] == 1 / 3 and found["token_accuracy"] == 6 / 9 and found["error_rate"] == 2 / 8


def test_errors_are_pooled_and_not_averaged_over_rows():
    assert error_rate([[1], [1, 2, 3, 4]], [[[2]], [[1, 2, 3, 4]]]) == 1 / 5


def test_each_of_several_references_is_right():
    hypothesis, references = ["AA"], [["AH", "B"], ["AA"]]
    assert sequence_accuracy([hypothesis], [references]) == 1.0 and error_rate([hypothesis], [references]) == 0.0
    assert sequence_accuracy([hypothesis], [references[:1]]) == 0.0 and error_rate([hypothesis], [references[:1]]) == 1.0


def test_the_reference_with_the_lowest_rate_counts_and_of_equal_ones_the_first():
    assert nearest([1, 2, 3, 4], [[1], [9, 2, 3, 9]]) == (2, [9, 2, 3, 9])  # 3 of 1 against 2 of 4
    assert nearest([1, 2], [[1, 9], [9, 2]]) == (1, [1, 9])
    assert nearest([1, 2], [[9, 2], [1, 9]]) == (1, [9, 2])


@given(rows_of([-2, -1, 0, 97]) | rows_of(["a", "b", ""]))
def test_measures_agree_with_the_plain_edit_distance(rows):
    hypotheses, references = map(list, zip(*rows, strict=True))
    found = score(hypotheses, references)
    assert 0 <= found["token_accuracy"] <= 1 and found["sequence_accuracy"] == sum(h in r for h, r in rows) / len(rows)
    rates = [min(plain_distance(h, one) / max(1, len(one)) for one in r) for h, r in rows]
    assert (found["edits"] == 0) == (sum(rates) == 0)
    if len(rows) == 1 and found["tokens"]:
        assert found["error_rate"] == rates[0]
    assert (found["error_rate"] is None) == (found["tokens"] == 0 and found["edits"] > 0)


@given(st.lists(TOKENS.filter(len), min_size=1, max_size=5))
def test_perfect_hypotheses_have_perfect_measures(rows):
    measured = score(rows, [[row] for row in rows])
    assert (measured["token_accuracy"], measured["sequence_accuracy"], measured["error_rate"]) == (1.0, 1.0, 0.0)


def test_surplus_and_missing_tokens_count_against_token_accuracy():
    assert token_accuracy([[1, 2, 3, 4]], [[[1, 2]]]) == 0.5
    assert token_accuracy([[1, 2]], [[[1, 2, 3, 4]]]) == 0.5
    assert token_accuracy([[]], [[[]]]) == 1.0


def test_characters_arrays_tuples_and_mixed_tokens_can_be_compared():
    assert error_rate(["abc"], [["abd"]]) == 1 / 3
    assert error_rate(np.array([[1, 2]]), [np.array([[1, 3]])]) == 0.5
    assert error_rate([(1, 2)], [[[np.int64(1), 3]]]) == 0.5
    assert error_rate([["a", 1]], [[["a", "b"]]]) == 0.5
    assert error_rate([[]], [[["a"]]]) == 1


@pytest.mark.parametrize(
    "hypotheses, references, words",
    [
        ([], [], "Received: 0 and 0"),
        ([[1]], [], "Received: 1 and 0"),
        ([[1], [1]], [[[1]], []], "Received: \\[\\] at row 1"),
        (["a"], ["a"], "Expected a list of at least one reference. Received: 'a' at row 0"),
        ([[1]], [[[]]], "Expected at least one reference token"),
        ("ab", [["a"], ["b"]], "Expected hypotheses to be a list. Received: 'ab' of type str"),
        (["ab"], "a", "Expected references to be a list. Received: 'a' of type str"),
        (None, [["a"]], "Expected hypotheses to be a list. Received: None"),
        ([b"ab"], [["ab"]], "lists of int, lists of str, or str. Received: b'ab' at row 0"),
        ([["a"]], [{"a": 1}], "Expected a list of at least one reference. Received: {'a': 1} at row 0"),
        ([["a", "b"]], [["a", "b"]], "references that are a list each, like the hypothesis. Received: 'a' at row 0"),
        ([[1, 2]], [[1, 2]], "lists of int, lists of str, or str. Received: 1 at row 0"),
        ([[1], [1, 2]], [[[1]], [["1", "2"]]], "references of int, like the hypothesis. Received: \\['1', '2'\\] at row 1"),
        (["ab"], [[["a", "b"]]], "references that are a str each, like the hypothesis. Received: \\['a', 'b'\\]"),
        ([[[1]]], [[[[1]]]], "lists of int, lists of str, or str. Received: \\[\\[1\\]\\] at row 0"),
        ([[1.5]], [[[1]]], "lists of int, lists of str, or str. Received: \\[1.5\\] at row 0"),
        ([["a"]], [[None]], "lists of int, lists of str, or str. Received: None at row 0"),
    ],
)
def test_input_that_cannot_be_measured_is_refused(hypotheses, references, words):
    with pytest.raises(UsageError, match=words):
        error_rate(hypotheses, references)
