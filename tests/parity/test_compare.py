"""The error of two results, and which weights are paired."""

import numpy as np
import pytest

from k3seq.parity.case import Case
from k3seq.parity.compare import SHARE, compare, paired, parameters, renumbered
from k3seq.parity.tolerances import tolerance

pytestmark = pytest.mark.once


def row(path, shape=(2,), dtype="float32", trainable=True):
    return {"path": path, "shape": list(shape), "dtype": dtype, "trainable": trainable}


def test_the_error_is_the_largest_difference_over_the_largest_value():
    found = compare(np.array([1.0, -4.0]), np.array([1.0, -3.5]))
    assert found.relative == 0.125 and found.absolute == 0.5
    assert compare(np.array([1.0, -4.0]), np.array([1.0, -4.0])).relative == 0.0


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_nan_and_infinity_never_pass_even_where_both_have_them(bad):
    one = np.array([1.0, bad])
    assert compare(one, one.copy()).relative == np.inf
    assert compare(np.array([1.0, 2.0]), one).relative == np.inf


def test_integers_are_equal_or_not():
    assert compare(np.array([7, 100]), np.array([7, 100])).relative == 0.0
    assert compare(np.array([7, 100]), np.array([7, 101])).relative == np.inf
    assert compare(np.array([True]), np.array([False])).relative == np.inf
    assert compare(np.array([1]), np.array([1.0])).relative == np.inf  # another kind of numbers


def test_a_mask_fill_does_not_hide_other_differences():
    fill = np.finfo(np.float32).min
    assert compare(np.array([fill, 1.0]), np.array([fill, 1.5])).relative == pytest.approx(1 / 3)
    assert compare(np.array([fill, 1.0]), np.array([1.0, fill])).relative == np.inf
    assert compare(np.array([-65504.0, 1.0]), np.array([-65504.0, 1.5]), dtype="float16").relative == pytest.approx(1 / 3)


def test_nested_structures_are_compared_place_by_place():
    a = {"x": np.ones(2), "y": [np.ones(3), np.zeros(1)]}
    b = {"x": np.ones(2), "y": [np.array([1.0, 1.0, 0.0]), np.zeros(1)]}
    assert compare(a, b).place == "y/0" and compare(a, b).relative == 1.0
    assert compare(a, {"x": np.ones(2)}).relative == np.inf
    assert compare(np.ones((2, 1)), np.ones((1, 2))).relative == np.inf


def test_a_gradient_of_rounding_errors_is_compared_with_a_share_of_the_largest():
    a, b = [np.array([1.0]), np.array([1e-9])], [np.array([1.0]), np.array([-1e-9])]
    assert compare(a, b).relative == 2.0
    assert compare(a, b, SHARE).relative == pytest.approx(2e-9 / SHARE)


def test_weights_are_paired_by_path_or_by_order_where_keras_numbers_them():
    ours = [row("model/dense_3/kernel", (2, 2)), row("model/dense_5/kernel", (2, 2))]
    theirs = [row("model/dense/kernel", (2, 2)), row("model/dense_1/kernel", (2, 2))]
    assert paired(ours, ours[::-1]) == {r["path"]: r["path"] for r in ours}
    assert paired(ours, theirs) == {
        "model/dense_3/kernel": "model/dense/kernel",
        "model/dense_5/kernel": "model/dense_1/kernel",
    }
    assert paired(ours, [row("model/dense/kernel", (2, 2)), row("model/dense_1/kernel", (2, 3))]) is None
    assert paired(ours, [row("model/gate/kernel", (2, 2)), row("model/dense_1/kernel", (2, 2))]) is None


def test_automatic_numbers_restart_in_every_layer():
    assert renumbered(["a_4/dense_2/kernel", "a_4/dense_7/kernel", "a_9/dense_8/kernel"]) == [
        "a_0/dense_0/kernel_0",
        "a_0/dense_1/kernel_0",
        "a_1/dense_0/kernel_0",
    ]


@pytest.mark.parametrize(
    "other, message",
    [
        ([row("a/kernel", (3, 2)), row("a/bias")], "shape"),
        ([row("a/kernel", (2, 3), "float64"), row("a/bias")], "dtype"),
        ([row("a/kernel", (2, 3), trainable=False), row("a/bias")], "trainable"),
        ([row("a/weight", (2, 3)), row("a/bias")], "path"),
        ([row("a/bias"), row("a/kernel", (2, 3))], "path"),
        ([row("a/kernel", (2, 3))], "the same number of weights"),
    ],
)
def test_tables_of_weights_differ_in_path_order_shape_dtype_kind_and_count(other, message):
    table = [row("a/kernel", (2, 3)), row("a/bias")]
    assert parameters(table, table).message == "2 weights, 8 numbers"
    found = parameters(table, other)
    assert found.relative == np.inf and message in found.message


def test_a_tolerance_comes_from_the_case_or_from_the_matrix_file(matrix):
    own = Case("c", "m:f", tolerances={"forward": 0.5, "bfloat16.forward": 0.25})
    assert tolerance(own, "forward", "float32", matrix) == 0.5
    assert tolerance(own, "forward", "bfloat16", matrix) == 0.25
    plain = Case("c", "m:f")
    assert tolerance(plain, "files", "float32", matrix) == matrix.tolerance("forward")
    assert tolerance(plain, "sgd", "float32", matrix) == matrix.tolerance("sgd_weights")
    assert tolerance(plain, "parameters", "float32", matrix) == 0.0
