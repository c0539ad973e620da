"""Several train steps against float64 NumPy: optimizers, clipping, smoothing, token weights, micro-batches, moving averages."""

import keras
import numpy as np
import pytest
from keras import ops

from golden import relative_error
from k3seq.backend import StepMixin
from k3seq.train.losses import TokenCrossentropy
from oracles import training as oracle

VOCABULARY, UNITS, CLASSES, ROWS, TOKENS, STEPS = 7, 4, 5, 4, 3, 6
MOMENTUM, AVERAGE = 0.9, 0.8


def starting_weights():
    draw = np.random.default_rng(0)
    shapes = {"embedding": (VOCABULARY, UNITS), "kernel": (UNITS, CLASSES), "bias": (CLASSES,)}
    return {name: draw.normal(size=shape).astype("float32") for name, shape in shapes.items()}


def batches(seed=1):
    """(ids, labels, weights): ids repeat within and between rows, and rows differ much in the tokens that count."""
    draw = np.random.default_rng(seed)
    found = []
    for _ in range(STEPS):
        ids = draw.integers(0, VOCABULARY - 1, (ROWS, TOKENS)).astype("int32")
        weights = (np.arange(TOKENS)[None, :] < np.array([[1], [1], [2], [3]])) * draw.choice([0.5, 1.0, 2.0], (ROWS, TOKENS))
        found.append((ids, draw.integers(0, CLASSES, (ROWS, TOKENS)).astype("int32"), weights.astype("float32")))
    return found


class RowWeighted(StepMixin, keras.Model):
    """`EmbeddingClassifier` in Keras; a batch counts by its rows."""

    def __init__(self, **kwargs):
        super().__init__(**kwargs)
        self.embedding = keras.layers.Embedding(VOCABULARY, UNITS, name="embedding")
        self.dense = keras.layers.Dense(CLASSES, name="dense")
        self.embedding.build((None, None))
        self.dense.build((None, None, UNITS))
        self.built = True
        for variable, value in zip(self.trainable_variables, starting_weights().values(), strict=True):
            variable.assign(value)

    def call(self, ids):
        return self.dense(self.embedding(ids))


class TokenWeighted(RowWeighted):
    """A batch counts by the weight of its tokens, as in k3seq's seq2seq models."""

    def batch_weight(self, x, y, sample_weight):
        return ops.sum(sample_weight)


def trained(optimizer, kind=TokenWeighted, smoothing=0.0, accumulate=1, weighted=True, data=None):
    """(weights, logs of each step) after a step on each batch."""
    model, logs = kind(), []
    model.compile(optimizer, loss=TokenCrossentropy(label_smoothing=smoothing))
    model.step_options(gradient_accumulation_steps=accumulate)
    for ids, labels, weights in data or batches():
        model.reset_metrics()
        log = model.train_on_batch(ids, labels, weights if weighted else np.ones_like(weights), return_dict=True)
        logs.append({name: float(value) for name, value in log.items()})
    if optimizer.use_ema:
        optimizer.finalize_variable_values(model.trainable_variables)
    values = [np.array(ops.convert_to_numpy(variable)) for variable in model.trainable_variables]
    return dict(zip(starting_weights(), values, strict=True)), logs


def expected(optimizer, **options):
    """The same in float64."""
    model = oracle.EmbeddingClassifier(starting_weights())
    logs = model.train([(ids, labels, weights) for ids, labels, weights in batches()], optimizer, **options)
    return model.weights, logs


def error(found, wanted):
    return max(relative_error(found[name], wanted[name]) for name in wanted)


@pytest.fixture
def near(tolerance):
    """Weights agree with the oracle within the matrix's tolerance, and those of the control do not."""

    def check(found, wanted, control):
        assert error(found, wanted) <= tolerance("reference")
        assert error(control, wanted) > 100 * tolerance("reference")

    return check


def test_losses_and_norms_are_those_before_each_update():
    _, wanted = expected(oracle.SGD(0.3), limit=0.2)
    _, logs = trained(keras.optimizers.SGD(0.3, global_clipnorm=0.2))
    assert [log["loss"] for log in logs] == pytest.approx([log["loss"] for log in wanted], rel=1e-5)
    assert [log["gradient_norm"] for log in logs] == pytest.approx([log["norm"] for log in wanted], rel=1e-5)
    assert min(log["norm"] for log in wanted) > 0.2  # the clipped norm would be 0.2 at each step


def test_sgd_with_momentum(near):
    wanted, _ = expected(oracle.SGD(0.1, MOMENTUM))
    found, _ = trained(keras.optimizers.SGD(0.1, MOMENTUM))
    plain, _ = trained(keras.optimizers.SGD(0.1))
    near(found, wanted, plain)


def test_adam(near):
    wanted, _ = expected(oracle.Adam(0.05))
    found, _ = trained(keras.optimizers.Adam(0.05))
    other, _ = trained(keras.optimizers.Adam(0.05, beta_1=0.5))
    near(found, wanted, other)


def test_adam_with_the_step_of_keras_is_right_only_where_gradients_of_embeddings_are_dense(tolerance):
    class Stock(TokenWeighted):
        train_step = keras.Model.train_step
        test_step = keras.Model.test_step

    wanted, _ = expected(oracle.Adam(0.05))
    wrong = error(trained(keras.optimizers.Adam(0.05), Stock)[0], wanted) > 100 * tolerance("reference")
    assert wrong == (keras.backend.backend() == "tensorflow")


@pytest.mark.parametrize("limit", [0.1, 0.4])
def test_clipping_by_the_global_norm(near, limit):
    wanted, _ = expected(oracle.SGD(0.3, MOMENTUM), limit=limit)
    found, _ = trained(keras.optimizers.SGD(0.3, MOMENTUM, global_clipnorm=limit))
    by_weight, _ = trained(keras.optimizers.SGD(0.3, MOMENTUM, clipnorm=limit))
    near(found, wanted, by_weight)


def test_label_smoothing(near):
    wanted, _ = expected(oracle.SGD(0.3), smoothing=0.1)
    found, _ = trained(keras.optimizers.SGD(0.3), smoothing=0.1)
    sharp, _ = trained(keras.optimizers.SGD(0.3))
    near(found, wanted, sharp)


def test_token_weights(near):
    wanted, _ = expected(oracle.SGD(0.3))
    found, _ = trained(keras.optimizers.SGD(0.3))
    unweighted, _ = trained(keras.optimizers.SGD(0.3), weighted=False)
    near(found, wanted, unweighted)


def test_a_batch_without_weight_changes_nothing():
    ids, labels, weights = batches()[0]
    found, [log] = trained(keras.optimizers.Adam(0.05), data=[(ids, labels, np.zeros_like(weights))])
    assert error(found, starting_weights()) == 0.0
    assert (log["loss"], log["gradient_norm"], log["refused"]) == (0.0, 0.0, 0.0)
    assert error(trained(keras.optimizers.Adam(0.05), data=[(ids, labels, weights)])[0], starting_weights()) > 1e-2


@pytest.mark.parametrize("parts", [2, 4])
def test_micro_batches_equal_the_whole_batch(near, parts):
    wanted, _ = expected(oracle.SGD(0.3, MOMENTUM), limit=0.3, smoothing=0.1)
    same, logs = expected(oracle.SGD(0.3, MOMENTUM), limit=0.3, smoothing=0.1, micro=parts)
    assert error(same, wanted) < 1e-12

    def run(kind):
        optimizer = keras.optimizers.SGD(0.3, MOMENTUM, global_clipnorm=0.3)
        return trained(optimizer, kind, smoothing=0.1, accumulate=parts)

    found, found_logs = run(TokenWeighted)
    near(found, wanted, run(RowWeighted)[0])  # the plain mean of the parts' gradients
    assert [log["loss"] for log in found_logs] == pytest.approx([log["loss"] for log in logs], rel=1e-5)
    assert [log["gradient_norm"] for log in found_logs] == pytest.approx([log["norm"] for log in logs], rel=1e-5)


def test_the_accumulation_of_keras_optimizers_is_the_plain_mean_and_another_update(near):
    halves = [tuple(array[part] for array in batch) for batch in batches() for part in (slice(0, 2), slice(2, 4))]
    stock, _ = trained(keras.optimizers.SGD(0.3, gradient_accumulation_steps=2), data=halves)
    rows, _ = trained(keras.optimizers.SGD(0.3), RowWeighted, accumulate=2)
    assert error(stock, rows) < 1e-5  # both are plain means
    wanted, _ = expected(oracle.SGD(0.3))
    near(trained(keras.optimizers.SGD(0.3), accumulate=2)[0], wanted, stock)


def test_moving_averages_of_the_weights(near):
    model, optimizer, average = oracle.EmbeddingClassifier(starting_weights()), oracle.SGD(0.1, MOMENTUM), None
    for batch in batches():
        model.train([batch], optimizer)
        average = oracle.moving_average(average, model.weights, AVERAGE)
    found, _ = trained(keras.optimizers.SGD(0.1, MOMENTUM, use_ema=True, ema_momentum=AVERAGE))
    near(found, average, model.weights)


def test_everything_together(near):
    model, optimizer, average = oracle.EmbeddingClassifier(starting_weights()), oracle.Adam(0.05), None
    for batch in batches():
        model.train([batch], optimizer, limit=0.3, smoothing=0.1, micro=2)
        average = oracle.moving_average(average, model.weights, AVERAGE)

    def run(limit, kind=TokenWeighted):
        adam = keras.optimizers.Adam(0.05, global_clipnorm=limit, use_ema=True, ema_momentum=AVERAGE)
        return trained(adam, kind, smoothing=0.1, accumulate=2)[0]

    near(run(0.3), average, run(0.3, RowWeighted))
    assert error(run(None), average) > 1e-4
