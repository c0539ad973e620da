"""The token loss of ids beside that of one-hot labels, which takes the `keras.ops` form on every backend."""

import numpy as np
import pytest
from keras import ops

from k3seq import backend
from k3seq.train.losses import token_crossentropies, token_crossentropy

DRAW = np.random.default_rng(0)
LOGITS = (3 * DRAW.normal(size=(3, 4, 7))).astype("float32")
LABELS = DRAW.integers(0, 7, (3, 4)).astype("int32")
WEIGHTS = DRAW.uniform(0.1, 2.0, (3, 4)).astype("float32")


def gradients(labels, smoothing, weights=WEIGHTS):
    def loss(logits):
        return ops.sum(token_crossentropies(ops.convert_to_tensor(labels), logits, smoothing) * ops.convert_to_tensor(weights))

    value, gradient = backend.value_and_grad(loss)(ops.convert_to_tensor(LOGITS))
    return ops.convert_to_numpy(value), ops.convert_to_numpy(gradient)


@pytest.mark.parametrize("smoothing", [0.0, 0.2])
def test_ids_have_the_loss_and_the_gradient_of_one_hot_labels(smoothing):
    for found, expected, other in zip(
        gradients(LABELS, smoothing),
        gradients(np.eye(7, dtype="float32")[LABELS], smoothing),
        gradients(LABELS, 0.5),
        strict=True,
    ):
        np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-6)
        assert np.max(np.abs(found - other)) > 1e-3


def test_a_label_of_weight_zero_may_be_minus_one():
    labels, weights = LABELS.copy(), WEIGHTS.copy()
    labels[1, 2], weights[1, 2] = -1, 0.0
    found = [
        float(ops.convert_to_numpy(token_crossentropy(y, ops.convert_to_tensor(LOGITS), weights))) for y in (labels, LABELS)
    ]
    assert found[0] == found[1]
