"""Labels and weights of seq2seq models: accepted shapes give the loss computed by hand, all others the same error."""

import keras
import numpy as np
import pytest
from keras import ops

from k3seq.errors import UsageError
from k3seq.models import Seq2Seq, registry
from k3seq.train import TokenCrossentropy, chunked_token_crossentropy, token_crossentropy

pytestmark = pytest.mark.trains

V = 5
TABLE = np.random.default_rng(0).normal(size=(V, V)).astype("float32")
TARGET = np.array([[1, 4, 2], [1, 3, 0], [1, 0, 0]], "int32")  # as many rows as steps, so that rows and steps can be confused
X = {"source": np.array([[4, 3], [4, 2], [3, 3]], "int32"), "target": TARGET}
Y = np.array([[4, 2, 2], [3, 2, 0], [2, 0, 1]], "int32")
ROWS = np.array([1.0, 0.0, 3.0], "float32")
TOKENS = np.array([[1, 1, 0], [0.5, 2, 0], [1, 0, 0]], "float32")
CLASS_WEIGHT = {2: 3.0, 0: 0.0}


def mean(weights):
    """The weighted mean of the tokens' losses in float64."""
    table = TABLE.astype("float64")
    logits = table[TARGET]
    losses = np.log(np.exp(logits).sum(-1)) - np.take_along_axis(logits, Y[..., None], -1)[..., 0]
    weights = np.broadcast_to(weights, losses.shape)
    return (losses * weights).sum() / weights.sum()


BY_CLASS = np.where(Y == 2, 3.0, np.where(Y == 0, 0.0, 1.0))
ONE_HOT = np.eye(V, dtype="float32")[Y]
ACCEPTED = {
    "ids": ((Y,), {}, mean(1.0)),
    "ids in a last axis": ((Y[..., None],), {}, mean(1.0)),
    "one-hot": ((ONE_HOT,), {}, mean(1.0)),
    "a weight per row": ((Y,), {"sample_weight": ROWS}, mean(ROWS[:, None])),
    "a weight per row in a last axis": ((Y,), {"sample_weight": ROWS[:, None]}, mean(ROWS[:, None])),
    "a weight per token": ((Y[..., None],), {"sample_weight": TOKENS}, mean(TOKENS)),
    "a list of weights": ((Y.tolist(),), {"sample_weight": ROWS.tolist()}, mean(ROWS[:, None])),
    "a weight per class": ((Y,), {"class_weight": CLASS_WEIGHT}, mean(BY_CLASS)),
    "a weight per class of one-hot labels": ((ONE_HOT,), {"class_weight": CLASS_WEIGHT}, mean(BY_CLASS)),
    "weights per class and row": ((Y,), {"class_weight": CLASS_WEIGHT, "sample_weight": ROWS}, mean(BY_CLASS * ROWS[:, None])),
}


@keras.saving.register_keras_serializable(package="tests")
class Bigram(Seq2Seq):
    """The logits of a token are its row of a table."""

    source_vocabulary_size = target_vocabulary_size = V

    def __init__(self, **kwargs):
        super().__init__(**kwargs)
        self.table = self.add_weight(shape=(V, V), initializer=keras.initializers.Constant(TABLE), name="table")
        self.built = True

    def call(self, inputs):
        return ops.take(ops.convert_to_tensor(self.table), inputs["target"], axis=0)


def compiled(loss=None):
    model = Bigram()
    model.compile(
        keras.optimizers.SGD(0.0), loss=loss, weighted_metrics=[keras.metrics.SparseCategoricalAccuracy(name="right")]
    )
    return model


@pytest.fixture(scope="module")
def model():
    return compiled()


def results(model, y, options):
    """The loss as `fit`, `train_on_batch`, `evaluate` and `test_on_batch` report it; the last two take no class weights."""
    yield model.fit(X, y, **options, batch_size=3, verbose=0).history["loss"][0]
    yield model.train_on_batch(X, y, **options, return_dict=True)["loss"]
    if "class_weight" not in options:
        yield model.evaluate(X, y, **options, batch_size=3, verbose=0, return_dict=True)["loss"]
        yield model.test_on_batch(X, y, **options, return_dict=True)["loss"]


def test_the_expected_losses_differ():
    assert len({round(float(loss), 3) for _, _, loss in ACCEPTED.values()}) == 5


@pytest.mark.parametrize("labels, options, expected", ACCEPTED.values(), ids=ACCEPTED)
def test_every_accepted_shape_gives_the_loss_by_hand(model, labels, options, expected):
    if labels[0] is ONE_HOT:
        model = Bigram()
        loss = keras.losses.CategoricalCrossentropy(from_logits=True, reduction="mean_with_sample_weight")
        model.compile(keras.optimizers.SGD(0.0), loss=loss)
    np.testing.assert_allclose(list(results(model, labels[0], options)), expected, rtol=1e-5)


def test_uniform_logits_give_the_logarithm_of_the_vocabulary_size():
    model = compiled()
    model.table.assign(ops.zeros((V, V)))
    for loss in results(model, Y[..., None], {"sample_weight": ROWS[:, None]}):
        np.testing.assert_allclose(loss, np.log(V), rtol=1e-6)


@pytest.mark.parametrize(
    "loss", [TokenCrossentropy(), keras.losses.SparseCategoricalCrossentropy(from_logits=True)], ids=lambda loss: loss.name
)
def test_compiled_losses_weigh_rows_too(loss):
    model = compiled(loss)
    scale = 1.0 if isinstance(loss, TokenCrossentropy) else ROWS.mean()  # Keras' own divides by the number of tokens
    found = [model.test_on_batch(X, y, w, return_dict=True) for y in (Y, Y[..., None]) for w in (ROWS, ROWS[:, None])]
    np.testing.assert_allclose([logs["loss"] for logs in found], mean(ROWS[:, None]) * scale, rtol=1e-5)
    right = ((TABLE[TARGET].argmax(-1) == Y) * ROWS[:, None]).sum() / (3 * ROWS.sum())
    np.testing.assert_allclose([logs["right"] for logs in found], right, rtol=1e-6)


def with_source(steps):
    return {**X, "source": np.zeros((3, steps), "int32")}


def changed(array, value):
    array = array.copy()
    array.flat[1] = value
    return array


SHAPES = r"Expected labels of shape \(3, 3\), \(3, 3, 1\) or \(3, 3, 5\). Received: shape "
WEIGHTS = r"Expected sample_weight of shape \(3,\), \(3, 1\) or \(3, 3\). Received: shape "
REFUSED = {
    "no labels": (X, None, None, r"Expected labels of shape \(3, 3\). Received: labels=None"),
    "one label per row": (X, Y[:, :1], None, SHAPES + r"\(3, 1\)"),
    "labels without steps": (X, Y[:, 0], None, SHAPES + r"\(3,\)"),
    "short labels": (X, Y[:, :2], None, SHAPES + r"\(3, 2\)"),
    "fewer rows": (X, Y[:2], None, SHAPES + r"\(2, 3\)"),
    "one-hot of another size": (X, ONE_HOT[..., :4], None, SHAPES + r"\(3, 3, 4\)"),
    "no source steps": (with_source(0), Y, None, r"Expected source of shape \(b, t\) with at least one step.*\(3, 0\)"),
    "a weight too many": (X, Y, np.ones(4), WEIGHTS + r"\(4,\)"),
    "weights per step": (X, Y, np.ones((1, 3)), WEIGHTS + r"\(1, 3\)"),
    "weights of three axes": (X, Y, TOKENS[..., None], WEIGHTS + r"\(3, 3, 1\)"),
    "one weight": (X, Y, np.float32(1), WEIGHTS + r"\(\)"),
    "a negative weight": (X, Y, changed(ROWS, -1.0), r"Expected sample_weight of finite .* Received: -1.0 at index \(1,\)"),
    "a weight that is no number": (X, Y, changed(TOKENS, np.nan), r"Received: nan at index \(0, 1\)"),
    "weights of text": (X, Y, np.array(["a", "b", "c"]), "Expected sample_weight to be numbers"),
    "ragged labels": (X, [[1, 2, 3], [1, 2], [1]], None, "Expected labels to be a rectangular array"),
}


@pytest.mark.parametrize("x, y, weight, message", REFUSED.values(), ids=REFUSED)
def test_everything_else_is_one_error_before_the_device(model, x, y, weight, message):
    for call in (model.fit, model.evaluate, model.train_on_batch, model.test_on_batch):
        with pytest.raises(UsageError, match=message):
            call(x, y, sample_weight=weight)
    with pytest.raises(UsageError, match=message):
        model.fit(X, Y, validation_data=(x, y, weight), verbose=0)
    np.testing.assert_array_equal(ops.convert_to_numpy(model.table), TABLE)


@pytest.mark.parametrize(
    "class_weight, message",
    [
        ({5: 1.0}, r"Expected class_weight key to be an integer in 0..4. Received: class_weight key=5"),
        ({"a": 1.0}, r"Received: class_weight key='a'"),
        ({1: -2.0}, r"Expected class_weight of finite numbers of at least 0. Received: -2.0 for label 1"),
    ],
)
def test_bad_class_weights_are_refused(model, class_weight, message):
    for call in (model.fit, model.train_on_batch):
        with pytest.raises(UsageError, match=message):
            call(X, Y, class_weight=class_weight)
    with pytest.raises(UsageError, match="Expected class_weight with labels in an array"):
        model.fit(iter([(X, Y)]), class_weight=CLASS_WEIGHT)


def batches(*batch):
    while True:
        yield batch


@pytest.mark.parametrize("weight, expected", [((), mean(1.0)), ((ROWS,), mean(ROWS[:, None]))])
def test_batches_of_a_generator_are_aligned_too(model, weight, expected):
    history = model.fit(batches(X, Y[..., None], *weight), steps_per_epoch=2, shuffle=False, verbose=0).history
    np.testing.assert_allclose(history["loss"], expected, rtol=1e-5)


@pytest.mark.parametrize("y, weight, message", [(Y[:, :2], None, SHAPES), (Y, np.ones(4, "float32"), WEIGHTS)])
def test_a_bad_batch_of_a_generator_does_not_change_the_weights(y, weight, message):
    model = compiled()
    for call, options in ((model.fit, {"steps_per_epoch": 1, "shuffle": False}), (model.evaluate, {"steps": 1})):
        with pytest.raises(UsageError, match=message):
            call(batches(X, y, weight), **options, verbose=0)
        np.testing.assert_array_equal(ops.convert_to_numpy(model.table), TABLE)
    assert model.train_on_batch(X, Y, return_dict=True)["loss"] == pytest.approx(mean(1.0), rel=1e-5)


SIZES = {
    "lstm": {"embed_dim": 4, "units": 4},
    "lstm-attention": {"embed_dim": 4, "units": 4},
    "transformer": {"embed_dim": 4, "num_heads": 2, "dense_dim": 4, "max_steps": 8},
    "sliding": {"embed_dim": 4, "dense_dim": 4, "width_source": 4, "width_target": 4},
}


@pytest.mark.parametrize("kind", registry.TRAINABLE)
def test_every_model_refuses_and_accepts_the_same(kind):
    model = registry.seq2seq(kind, V, V, num_layers=1, **SIZES[kind])
    model.compile("sgd")
    for x, y, weight, message in REFUSED.values():
        with pytest.raises(UsageError, match=message):
            model.train_on_batch(x, y, sample_weight=weight)
    rows, tokens = (model.test_on_batch(X, y, w) for y, w in [(Y[..., None], ROWS), (Y, ROWS[:, None] * np.ones((3, 3)))])
    assert rows == pytest.approx(tokens)


def test_the_loss_functions_accept_the_same_shapes():
    logits, identity = TABLE[TARGET], np.eye(V, dtype="float32")
    for y in (Y, Y[..., None], ONE_HOT):
        for weight, expected in ((None, mean(1.0)), (ROWS, mean(ROWS[:, None])), (ROWS[:, None], mean(ROWS[:, None]))):
            found = [
                token_crossentropy(y, logits, weight),
                TokenCrossentropy()(y, ops.convert_to_tensor(logits), weight),
                chunked_token_crossentropy(logits, identity, None, y, weight),
            ]
            np.testing.assert_allclose([float(ops.convert_to_numpy(loss)) for loss in found], expected, rtol=1e-5)


@pytest.mark.parametrize("case", ["one label per row", "one-hot of another size", "a weight too many", "a negative weight"])
def test_the_loss_functions_refuse_what_models_refuse(case):
    _, y, weight, message = REFUSED[case]
    logits, message = TABLE[TARGET], message.replace("sample_weight", "(sample_weight|weights)")
    for tensor in (lambda x: x, lambda x: None if x is None else ops.convert_to_tensor(x)):
        for loss in (
            lambda y, w: token_crossentropy(y, logits, w),
            lambda y, w: TokenCrossentropy()(y, logits, w),
            lambda y, w: chunked_token_crossentropy(logits, np.eye(V, dtype="float32"), None, y, w),
        ):
            with pytest.raises(UsageError, match=message):
                loss(tensor(y), tensor(weight))
