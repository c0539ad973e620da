import keras
import numpy as np
import pytest
from keras import ops

from k3seq.layers.masks import causal_mask, combine, key_mask, length_mask, masked_mean, masked_softmax


def test_a_length_mask_keeps_the_first_positions():
    mask = ops.convert_to_numpy(length_mask(np.array([0, 2, 3], "int32"), 3))
    assert mask.dtype == bool
    assert mask.tolist() == [[False] * 3, [True, True, False], [True] * 3]


def test_a_causal_mask_keeps_a_position_and_earlier_ones():
    assert ops.convert_to_numpy(causal_mask(3)).astype(int).tolist() == [[[1, 0, 0], [1, 1, 0], [1, 1, 1]]]


def test_a_combined_mask_keeps_positions_that_all_masks_keep():
    rows = np.array([[True, True, False]])
    both = ops.convert_to_numpy(combine(causal_mask(3), None, key_mask(rows)))
    assert both.astype(int).tolist() == [[[1, 0, 0], [1, 1, 0], [1, 1, 0]]]
    assert combine(None, None) is None and key_mask(None) is None


@pytest.mark.parametrize("dtype", ["float32", "float16", "bfloat16"])
def test_masked_softmax_gives_exact_zeros_and_no_nan(dtype):
    scores = ops.cast(np.array([[1.0, 2.0, 9.0], [1.0, 2.0, 9.0], [5.0, 5.0, 5.0]]), dtype)
    mask = np.array([[True, True, False], [False, False, False], [True, True, True]])
    weights = ops.convert_to_numpy(ops.cast(masked_softmax(scores, ops.convert_to_tensor(mask)), "float32"))
    small = 1 / (1 + np.e)
    np.testing.assert_allclose(
        weights, [[small, 1 - small, 0], [0, 0, 0], [1 / 3] * 3], atol=1e-6 if dtype == "float32" else 5e-3
    )
    assert (weights[~mask] == 0).all()
    unmasked = ops.convert_to_numpy(ops.cast(masked_softmax(scores), "float32"))
    assert unmasked[0, 2] > 0.9  # without the mask the third position takes nearly all


def test_masked_softmax_keeps_scores_far_below_zero():
    scores = np.array([[-1e6, -1e6 - 1, 0.0]], "float32")
    weights = ops.convert_to_numpy(masked_softmax(ops.convert_to_tensor(scores), ops.convert_to_tensor([[True, True, False]])))
    np.testing.assert_allclose(weights, [[1 / (1 + np.exp(-1)), 1 / (1 + np.e), 0]], atol=1e-6)


def test_masked_mean_counts_kept_steps_only():
    x = np.array([[[1.0], [3.0], [100.0]], [[1.0], [3.0], [100.0]]], "float32")
    mask = np.array([[True, True, False], [False, False, False]])
    assert ops.convert_to_numpy(masked_mean(keras.ops.convert_to_tensor(x), mask)).tolist() == [[2.0], [0.0]]
