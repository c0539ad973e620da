"""The token loss against float64 NumPy."""

import keras
import numpy as np
import pytest
from keras import ops

from golden import relative_error
from k3seq.errors import UsageError
from k3seq.train.losses import TokenCrossentropy, token_crossentropies, token_crossentropy
from oracles import training as oracle

DRAW = np.random.default_rng(0)
LOGITS = DRAW.normal(0, 3, (3, 4, 7)).astype("float32")
LABELS = DRAW.integers(0, 7, (3, 4)).astype("int32")
WEIGHTS = np.array([[1, 1, 1, 1], [1, 0.5, 0, 0], [2, 0, 0, 0]], "float32")
SMOOTHINGS = [0.0, 0.1, 0.9]


def numbers(x):
    return ops.convert_to_numpy(x)


def loss(labels=LABELS, logits=LOGITS, weights=None, smoothing=0.0):
    return float(numbers(token_crossentropy(*map(ops.convert_to_tensor, (labels, logits)), weights, smoothing)))


@pytest.mark.parametrize("smoothing", SMOOTHINGS)
def test_the_loss_of_each_token_equals_float64(smoothing, tolerance):
    found = numbers(token_crossentropies(LABELS, LOGITS, smoothing))
    expected = oracle.token_losses(LOGITS.astype("float64"), LABELS, smoothing)
    assert found.dtype == np.float32
    assert relative_error(found, expected) <= tolerance("reference")
    for other in set(SMOOTHINGS) - {smoothing}:
        assert relative_error(numbers(token_crossentropies(LABELS, LOGITS, other)), expected) > 1e-2
    assert relative_error(numbers(token_crossentropies((LABELS + 1) % 7, LOGITS, smoothing)), expected) > 1e-2


@pytest.mark.parametrize("smoothing", SMOOTHINGS)
@pytest.mark.parametrize("weights", [None, WEIGHTS], ids=["plain", "weighted"])
def test_the_mean_is_over_the_weight_of_the_tokens(weights, smoothing, tolerance):
    expected = oracle.cross_entropy(LOGITS.astype("float64"), LABELS, weights, smoothing)
    assert loss(weights=weights, smoothing=smoothing) == pytest.approx(expected, rel=tolerance("reference"))
    assert loss(weights=weights, smoothing=0.5) != pytest.approx(expected, rel=1e-2)
    other = np.ones_like(WEIGHTS) if weights is not None else WEIGHTS
    assert loss(weights=other, smoothing=smoothing) != pytest.approx(expected, rel=1e-2)


def test_the_mean_is_over_tokens_not_over_rows():
    rows = [oracle.cross_entropy(LOGITS[i : i + 1].astype("float64"), LABELS[i : i + 1], WEIGHTS[i : i + 1]) for i in range(3)]
    assert loss(weights=WEIGHTS) != pytest.approx(np.mean(rows), rel=1e-2)
    assert loss(weights=WEIGHTS) == pytest.approx(np.average(rows, weights=WEIGHTS.sum(1)), rel=1e-5)


@pytest.mark.parametrize("smoothing", SMOOTHINGS)
def test_one_hot_labels_give_the_loss_of_ids(smoothing):
    one_hot = np.eye(7, dtype="float32")[LABELS]
    ids = loss(weights=WEIGHTS, smoothing=smoothing)
    assert loss(one_hot, weights=WEIGHTS, smoothing=smoothing) == pytest.approx(ids, rel=1e-6)
    assert loss(np.roll(one_hot, 1, -1), weights=WEIGHTS, smoothing=smoothing) != pytest.approx(ids, rel=1e-2)


def test_a_distribution_as_label_gives_its_cross_entropy():
    soft = DRAW.dirichlet(np.ones(7), (3, 4)).astype("float32")
    expected = -(soft * oracle.log_softmax(LOGITS.astype("float64"))).sum(-1)
    assert relative_error(numbers(token_crossentropies(soft, LOGITS)), expected) <= 1e-5
    assert relative_error(numbers(token_crossentropies(LABELS, LOGITS)), expected) > 1e-2


def test_weights_that_are_all_zero_give_zero():
    assert loss(weights=np.zeros_like(WEIGHTS)) == 0.0
    assert loss(weights=np.full_like(WEIGHTS, 1e-3)) > 0.1


@pytest.mark.parametrize("smoothing", SMOOTHINGS)
@pytest.mark.parametrize("bad", [np.inf, -np.inf, np.nan])
def test_tokens_of_weight_zero_do_not_count(bad, smoothing):
    broken = np.where((WEIGHTS == 0)[..., None], bad, LOGITS).astype("float32")
    assert loss(logits=broken, weights=WEIGHTS, smoothing=smoothing) == loss(weights=WEIGHTS, smoothing=smoothing)
    assert not np.isfinite(loss(logits=broken, smoothing=smoothing))


def test_an_impossible_label_has_an_infinite_loss_that_weight_zero_hides():
    impossible = LOGITS.copy()
    impossible[1, 3, LABELS[1, 3]] = -np.inf
    assert loss(logits=impossible) == np.inf
    assert np.isfinite(loss(logits=impossible, weights=WEIGHTS))


@pytest.mark.parametrize("dtype", ["float16", "bfloat16"])
def test_half_precision_logits_are_summed_in_float32(dtype):
    # 3,000 classes: their exponentials sum to a number of which a half keeps three digits at most.
    logits = DRAW.normal(0, 3, (2, 3, 3000)).astype("float32")
    labels = DRAW.integers(0, 3000, (2, 3)).astype("int32")
    half = ops.cast(ops.convert_to_tensor(logits), dtype)
    expected = oracle.token_losses(numbers(ops.cast(half, "float32")).astype("float64"), labels, 0.1)
    found = numbers(token_crossentropies(labels, half, 0.1))
    assert found.dtype == np.float32
    assert relative_error(found, expected) <= 1e-5
    assert relative_error(numbers(ops.cast(ops.cast(ops.convert_to_tensor(found), dtype), "float32")), expected) > 1e-5


def test_the_compiled_loss_is_the_function():
    for smoothing in SMOOTHINGS:
        compiled = TokenCrossentropy(label_smoothing=smoothing)
        found = float(numbers(compiled(LABELS, ops.convert_to_tensor(LOGITS), ops.convert_to_tensor(WEIGHTS))))
        assert found == loss(weights=WEIGHTS, smoothing=smoothing)
        plain = float(numbers(compiled(LABELS, ops.convert_to_tensor(LOGITS))))
        assert plain == loss(smoothing=smoothing) != found


def test_a_compiled_loss_is_saved_and_loaded_with_its_smoothing():
    content = keras.losses.serialize(TokenCrossentropy(label_smoothing=0.2, name="mine"))
    again = keras.losses.deserialize(content)
    assert isinstance(again, TokenCrossentropy)
    assert (again.label_smoothing, again.name) == (0.2, "mine")
    assert again.get_config() != TokenCrossentropy().get_config()
    assert float(numbers(again(LABELS, LOGITS))) == loss(smoothing=0.2) != loss()


@pytest.mark.parametrize("smoothing", [-0.1, 1.0, 2.0, float("nan")])
def test_a_smoothing_outside_of_zero_and_one_is_refused(smoothing):
    with pytest.raises(UsageError, match=r"Expected label_smoothing to be a number in \[0, 1\). Received: label_smoothing="):
        TokenCrossentropy(label_smoothing=smoothing)
