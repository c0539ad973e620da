"""Gathering, tiling and ranking against golden vectors, plain loops and answers that can be read by eye."""

from typing import NamedTuple

import numpy as np
import pytest
from keras import ops

import golden
from k3seq import backend as backends
from k3seq.decode.ranking import FEW, first_best
from k3seq.decode.tree import gather_tree, gather_tree_from_array, tile_batch
from k3seq.errors import UsageError
from oracles import beam

END = 9
# Two beams of one row: 5 6 7 8 and, from its second step on the other one's child, 5 6 2 9.
TOKENS = np.array([[[5, 1]], [[6, 3]], [[7, 2]], [[8, 9]]])
PARENTS = np.array([[[0, 0]], [[0, 0]], [[0, 0]], [[0, 1]]])


@pytest.mark.parametrize("id", golden.cases("gather_tree"))
def test_gather_tree_equals_tfa(id):
    case = golden.case(id)
    arguments, end = (case["in.step_ids"], case["in.parent_ids"], case["in.max_sequence_lengths"]), case.params["end_token"]
    found = ops.convert_to_numpy(backends.compiled(lambda *ids: gather_tree(*ids, end))(*arguments))
    np.testing.assert_array_equal(found, case["f32.beams"])
    np.testing.assert_array_equal(beam.gather_tree(*arguments, end), case["f32.beams"])
    assert found.dtype == np.int32


@pytest.mark.parametrize("id", golden.cases("gather_tree_from_array"))
def test_gather_tree_from_array_equals_tfa(id):
    case = golden.case(id)
    fast = backends.compiled(gather_tree_from_array)
    found = fast(case["in.t"], case["in.parent_ids"], case["in.sequence_length"])
    np.testing.assert_array_equal(ops.convert_to_numpy(found), case["f32.ordered"])


@pytest.mark.parametrize("id", golden.cases("tile_batch"))
def test_tile_batch_equals_tfa(id):
    case = golden.case(id)
    found = tile_batch({"float": case["in.t"], "int": case["in.t_int"]}, case.params["multiplier"])
    np.testing.assert_array_equal(ops.convert_to_numpy(found["float"]), case["f32.y"])
    np.testing.assert_array_equal(ops.convert_to_numpy(found["int"]), case["f32.y_int"])


def test_beams_are_read_back_along_their_parents():
    found = ops.convert_to_numpy(gather_tree(TOKENS, PARENTS, [4], END))
    assert found[:, 0].T.tolist() == [[5, 6, 7, 8], [5, 6, 2, 9]]


@pytest.mark.parametrize("length, expected", [(0, [9, 9, 9, 9]), (2, [5, 6, 9, 9]), (7, [5, 6, 7, 8])])
def test_what_lies_after_the_length_of_a_row_is_the_end_token(length, expected):
    assert ops.convert_to_numpy(gather_tree(TOKENS, PARENTS, [length], END))[:, 0, 0].tolist() == expected


def test_trees_of_any_size_equal_plain_loops():
    """Numbers of steps that are a power of two, and not: maps are composed in pairs, pairs of pairs, and so on."""
    rng = np.random.default_rng(0)
    fast = backends.compiled(lambda t, p, n: gather_tree(t, p, n, 3))
    for trial in range(20):
        steps, batch, width = ((8, 2, 3), (13, 3, 4))[trial % 2]
        tokens, parents = rng.integers(0, 9, (steps, batch, width)), rng.integers(0, width, (steps, batch, width))
        tokens, parents, lengths = (x.astype("int32") for x in (tokens, parents, rng.integers(0, steps + 3, batch)))
        expected = beam.gather_tree(tokens, parents, lengths, 3)
        np.testing.assert_array_equal(ops.convert_to_numpy(fast(tokens, parents, lengths)), expected)


def test_arrays_follow_the_path_of_their_beam_and_keep_their_own_entries_after_its_length():
    rng = np.random.default_rng(1)
    parents, lengths = rng.integers(0, 3, (6, 2, 3)).astype("int32"), np.array([[6, 2, 0], [3, 3, 1]], "int32")
    values = rng.normal(size=(6, 2, 3, 4)).astype("float32")
    expected = beam.gather_tree_from_array(values, parents, lengths)
    both = backends.compiled(
        lambda x, p, n: (gather_tree_from_array(x, p, n), gather_tree_from_array(ops.reshape(x, (6, 6, 4)), p, n))
    )
    split, merged = both(values, parents, lengths)
    np.testing.assert_array_equal(ops.convert_to_numpy(split), expected)
    np.testing.assert_array_equal(ops.convert_to_numpy(merged), expected.reshape(6, 6, 4))
    assert not np.array_equal(expected, values)


def test_a_parent_that_is_no_beam_is_refused_only_where_a_path_meets_it():
    parents = PARENTS.copy()
    parents[3, 0, 1] = 2
    with pytest.raises(UsageError, match="the path of beam 1 of row 0 at step 3"):
        gather_tree(TOKENS, parents, [4], END)
    parents[3, 0, 1], parents[0] = 1, -1
    assert ops.convert_to_numpy(gather_tree(TOKENS, parents, [4], END))[:, 0, 1].tolist() == [5, 6, 2, 9]


def test_under_jit_a_parent_that_is_no_beam_leaves_minus_one_before_it(backend):
    if backend == "torch":
        pytest.skip("torch runs eagerly and raises")
    parents = PARENTS.copy()
    parents[2, 0, 1] = -3
    found = backends.compiled(lambda t, p: gather_tree(t, p, np.array([4], "int32"), END))(
        TOKENS.astype("int32"), parents.astype("int32")
    )
    assert ops.convert_to_numpy(found)[:, 0].T.tolist() == [[5, 6, 7, 8], [-1, -1, 2, 9]]


@pytest.mark.parametrize(
    "refused",
    [
        lambda: gather_tree(TOKENS, PARENTS[:3], [4], END),
        lambda: gather_tree(TOKENS, PARENTS, [4, 4], END),
        lambda: gather_tree_from_array(np.zeros((4, 3, 2)), PARENTS, [[4, 4]]),
        lambda: tile_batch(np.float32(1.0), 2),
        lambda: tile_batch(np.zeros(3), 0),
        lambda: tile_batch(np.zeros(3), 1.5),
    ],
    ids=["parents", "lengths", "array", "scalar", "zero", "fraction"],
)
def test_what_does_not_fit_is_refused(refused):
    with pytest.raises(UsageError, match="^Expected .*Received"):
        refused()


def test_tile_batch_keeps_the_structure_and_puts_copies_side_by_side():
    class Pair(NamedTuple):
        h: np.ndarray
        rest: list

    found = tile_batch(Pair(np.array([[1, 2], [3, 4]]), [np.array([5, 6]), None]), 2)
    assert isinstance(found, Pair) and found.rest[1] is None
    assert ops.convert_to_numpy(found.h).tolist() == [[1, 2], [1, 2], [3, 4], [3, 4]]
    assert ops.convert_to_numpy(found.rest[0]).tolist() == [5, 5, 6, 6]


@pytest.mark.parametrize("count, size", [(3, 24), (FEW + 1, 24), (2, 700)])
def test_equal_scores_are_ranked_by_index_infinities_among_them(count, size):
    few = np.array([0.0, 1.0, -1.0, -np.inf], "float32")
    scores = np.random.default_rng(count).choice(few, (40, size))
    scores[0], scores[1], scores[2, 4:], scores[3, 1:] = -np.inf, 1.0, -np.inf, -np.inf
    scores[4, :-1] = -np.inf
    best, indices = backends.compiled(lambda x: first_best(x, count))(scores)
    expected = np.argsort(-scores, axis=1, kind="stable")[:, :count]
    np.testing.assert_array_equal(ops.convert_to_numpy(indices), expected)
    np.testing.assert_array_equal(ops.convert_to_numpy(best), np.take_along_axis(scores, expected, axis=1))
    assert not np.array_equal(expected, np.argsort(scores[:, ::-1], axis=1, kind="stable")[:, ::-1][:, :count])
