"""The training oracle: its gradients against differences, its optimizers by hand and against Keras."""

import numpy as np
import pytest

import golden
from oracles import differences, training

pytestmark = pytest.mark.once

FLOAT32 = 3e-6


def classifier(pooled=False, seed=0):
    rng = np.random.default_rng(seed)
    weights = {"embedding": rng.normal(size=(6, 4)), "kernel": rng.normal(size=(4, 5)), "bias": rng.normal(size=5)}
    return training.EmbeddingClassifier(weights, pooled)


def batch(pooled=False, seed=1):
    rng = np.random.default_rng(seed)
    ids = np.array([[1, 1, 2], [5, 1, 5], [0, 3, 3], [2, 2, 2]])
    shape = (4,) if pooled else (4, 3)
    return ids, rng.integers(0, 5, shape), rng.choice([0.0, 0.5, 1.0, 2.0], shape)


def test_smoothed_cross_entropy_by_hand():
    logits = np.log(np.array([[[0.5, 0.25, 0.25], [0.25, 0.25, 0.5]]]))
    labels, weights = np.array([[0, 2]]), np.array([[1.0, 3.0]])
    assert training.smooth(labels, 3, 0.3)[0, 0] == pytest.approx([0.8, 0.1, 0.1], abs=1e-15)
    each = -(0.8 * np.log(0.5) + 0.2 * np.log(0.25))
    assert training.token_losses(logits, labels, 0.3)[0] == pytest.approx([each, each], abs=1e-14)
    plain = training.cross_entropy(logits, np.array([[0, 0]]), weights)
    assert plain == pytest.approx((np.log(2) + 3 * np.log(4)) / 4, abs=1e-14)
    assert training.cross_entropy(logits, labels, np.zeros((1, 2))) == 0.0


@pytest.mark.parametrize("pooled", [False, True])
def test_written_gradients_equal_differences(pooled):
    model, (ids, labels, weights) = classifier(pooled), batch(pooled)
    written = model.gradients(ids, labels, weights, 0.1)

    def loss(arrays):
        return training.EmbeddingClassifier(arrays, pooled).loss(ids, labels, weights, 0.1)

    for name, gradient in written.items():
        measured = differences.gradient(loss, model.weights, name)
        assert golden.relative_error(gradient, measured) < 1e-8, name
        assert golden.relative_error(np.roll(gradient, 1, axis=0), measured) > 1e-2, name
    assert not written["embedding"][4].any()


def test_a_repeated_id_gets_the_sum_of_its_gradients():
    model, labels = classifier(), np.array([[0, 1]])
    twice = model.gradients(np.array([[1, 1]]), labels)["embedding"][1]
    apart = sum(model.gradients(np.array([[1]]), labels[:, [i]])["embedding"][1] for i in range(2)) / 2
    assert twice == pytest.approx(apart, abs=1e-15)
    last = model.gradients(np.array([[2, 1]]), labels)["embedding"][1]
    assert not np.allclose(twice, last)


def test_a_first_adam_step_is_the_rate_in_the_sign_of_the_gradient():
    stepped = training.Adam(0.1).update({"w": np.zeros(3)}, {"w": np.array([3.0, -1e-3, 0.0])})["w"]
    assert stepped == pytest.approx([-0.1, 0.1, 0.0], abs=1e-3)
    # sqrt(v) is |g| sqrt(1 - beta_2): epsilon is added to that, so that it counts 1 / sqrt(0.001) times what it would after.
    tiny = training.Adam(1.0, epsilon=1e-3).update({"w": np.zeros(1)}, {"w": np.array([1e-2])})["w"].item()
    root = 1e-2 * np.sqrt(0.001)
    assert tiny == pytest.approx(-root / (root + 1e-3), abs=1e-12)


def test_momentum_by_hand():
    optimizer = training.SGD(0.5, 0.9)
    weights = {"w": np.array([1.0])}
    for gradient, expected in ((2.0, 0.0), (2.0, -1.9), (0.0, -3.61)):
        weights = optimizer.update(weights, {"w": np.array([gradient])})
        assert weights["w"].item() == pytest.approx(expected, abs=1e-14)


def test_clipping_scales_all_gradients_by_one_factor():
    gradients = {"a": np.array([3.0]), "b": np.array([[4.0]])}
    clipped, norm = training.clip(gradients, 1.0)
    assert norm == 5.0
    assert (clipped["a"].item(), clipped["b"].item()) == pytest.approx((0.6, 0.8), abs=1e-15)
    assert training.clip(gradients, 6.0)[0]["a"].item() == 3.0


def test_a_moving_average_starts_as_the_weights():
    average = training.moving_average(None, {"w": np.array([1.0])}, 0.9)
    average = training.moving_average(average, {"w": np.array([2.0])}, 0.9)
    assert average["w"].item() == pytest.approx(1.1, abs=1e-15)


@pytest.mark.parametrize("pooled", [False, True])
def test_parts_of_a_batch_weighted_by_tokens_equal_the_whole_batch(pooled):
    one = batch(pooled)
    whole, split = classifier(pooled), classifier(pooled)
    logs = [m.train([one] * 5, training.Adam(0.1), limit=0.2, smoothing=0.1, micro=n) for m, n in ((whole, 1), (split, 2))]
    assert logs[0][-1]["loss"] == pytest.approx(logs[1][-1]["loss"], rel=1e-12)
    assert logs[0][-1]["loss"] < logs[0][0]["loss"]
    for name, w in whole.weights.items():
        assert golden.relative_error(split.weights[name], w) < 1e-10, name
    ids, labels, weights = one
    halves = [whole.gradients(ids[part], labels[part], weights[part]) for part in (slice(0, 2), slice(2, 4))]
    full = whole.gradients(ids, labels, weights)["kernel"]
    tokens = [weights[:2].sum(), weights[2:].sum()]
    assert tokens[0] != tokens[1]
    assert golden.relative_error(training.accumulate(halves, tokens)["kernel"], full) < 1e-12
    assert golden.relative_error(training.accumulate(halves, [1.0, 1.0])["kernel"], full) > 1e-3


@pytest.mark.parametrize("kind", ["adam", "sgd"])
def test_optimizers_equal_keras(kind):
    keras = pytest.importorskip("keras")
    rng = np.random.default_rng(4)
    start, gradients = rng.normal(size=(3, 2)), rng.normal(size=(4, 3, 2))
    settings = {"use_ema": True, "ema_momentum": 0.9, "global_clipnorm": 1.5}
    if kind == "adam":
        theirs, ours = keras.optimizers.Adam(0.1, epsilon=1e-2, **settings), training.Adam(0.1, epsilon=1e-2)
    else:
        theirs, ours = keras.optimizers.SGD(0.1, momentum=0.9, **settings), training.SGD(0.1, momentum=0.9)
    variable = keras.Variable(start.astype("float32"))
    theirs.build([variable])
    weights, average = {"w": start}, None
    for gradient in gradients:
        theirs.apply([keras.ops.convert_to_tensor(gradient.astype("float32"))], [variable])
        weights = ours.update(weights, training.clip({"w": gradient}, 1.5)[0])
        average = training.moving_average(average, weights, 0.9)
    result = keras.ops.convert_to_numpy(variable)
    assert golden.relative_error(result, weights["w"]) < FLOAT32
    assert golden.relative_error(result, average["w"]) > 1e-3
    theirs.finalize_variable_values([variable])
    assert golden.relative_error(keras.ops.convert_to_numpy(variable), average["w"]) < FLOAT32
