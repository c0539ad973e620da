"""Host checks: what passes, what is refused, and where the message points."""

import numpy as np
import pytest

from k3seq.data.checks import check_ids, check_labels, check_lengths, check_mask
from k3seq.errors import UsageError

pytestmark = pytest.mark.once

IDS = np.arange(40).reshape(4, 10)
ONE_HOT = np.eye(3, dtype="float32")[[0, 2]]


def changed(array, place, value):
    array = array.copy()
    array[place] = value
    return array


def test_good_values_come_back_as_arrays():
    assert check_ids([[0, 499]], 500).tolist() == [[0, 499]]
    assert check_ids(np.zeros((0, 3), "int64"), 5).shape == (0, 3)
    assert check_ids([], 5).shape == (0,)
    assert check_lengths([1, 5], 5).tolist() == [1, 5]
    assert check_lengths([0], 5, allow_empty=True).tolist() == [0]
    assert check_labels([0, 2], 3).tolist() == [0, 2]
    assert check_labels(ONE_HOT, 3).shape == (2, 3)
    assert check_mask([[True, False]], (1, 2)).dtype == bool
    assert check_mask([[True, False]], (None, 2)).shape == (1, 2)


@pytest.mark.parametrize(
    "check, words",
    [
        (
            lambda: check_ids(changed(IDS, (3, 7), 500), 500, "source ids"),
            "Expected source ids in 0..499. Received: 500 at row 3, step 7",
        ),
        (lambda: check_ids(changed(IDS, (1, 0), -1), 500), "Expected ids in 0..499. Received: -1 at row 1, step 0"),
        (lambda: check_ids([4, 5], 5), "Received: 5 at position 1"),
        (lambda: check_ids(np.full((1, 1, 1), 9), 5), "Received: 9 at index \\(0, 0, 0\\)"),
        (lambda: check_ids(np.int32(5), 5), "Received: 5 at index \\(\\)"),
        (lambda: check_ids([0.5], 5, "target ids"), "Expected target ids to be integers. Received: float64"),
        (lambda: check_ids([True], 5), "to be integers. Received: bool"),
        (lambda: check_ids([[1], [1, 2]], 5), "rectangular array. Received: rows of other lengths"),
        (lambda: check_lengths([1, 6], 5, "source_lengths"), "Expected source_lengths in 1..5. Received: 6 at row 1"),
        (lambda: check_lengths([0], 5), "Expected lengths in 1..5. Received: 0 at row 0"),
        (lambda: check_lengths([-1], 5, allow_empty=True), "Expected lengths in 0..5. Received: -1 at row 0"),
        (lambda: check_lengths([[1]], 5), "of shape \\(batch,\\). Received: shape \\(1, 1\\)"),
        (lambda: check_labels([[0, 3]], 3), "Expected labels in 0..2. Received: 3 at row 0, step 1"),
        (lambda: check_labels([[0, 3]], 3, weight=[[0, 1]]), "Received: 3 at row 0, step 1"),
        (lambda: check_labels([[0, 1]], 3, weight=[0, 1]), "weights of shape \\(1, 2\\). Received: shape \\(2,\\)"),
        (lambda: check_labels(ONE_HOT, 4), "of shape \\(..., 4\\). Received: shape \\(2, 3\\)"),
        (lambda: check_labels(ONE_HOT * 2, 3), "distributions.* Received: 2.0 at position 0"),
        (lambda: check_labels(changed(ONE_HOT, (1, 0), np.nan), 3), "Received: nan at position 1"),
        (lambda: check_labels([[1.5, -0.5]], 2), "without negative entries. Received: 1.0 at position 0"),
        (lambda: check_mask([1, 0], (2,)), "Expected mask of bool, True = keep. Received: int64"),
        (lambda: check_mask([True], (2,), "source_mask"), "Expected source_mask of shape \\(2,\\). Received: shape \\(1,\\)"),
        (lambda: check_mask([True], (1, 1)), "Received: shape \\(1,\\)"),
    ],
)
def test_bad_values_are_refused_with_their_place(check, words):
    with pytest.raises(UsageError, match=words) as caught:
        check()
    assert "\n" not in str(caught.value)


def test_a_label_without_weight_may_be_anything():
    assert check_labels([[0, 99]], 3, weight=[[1.0, 0.0]]).tolist() == [[0, 99]]
    with pytest.raises(UsageError):
        check_labels([[0, 99]], 3)
