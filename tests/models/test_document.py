import importlib.util

import keras
import numpy as np
import pytest
from keras import ops

from k3seq.models.examples.document import LOSS_WEIGHTS, LOSSES, MaskedMean, document_classifier

ROWS, BATCH = 12, 4
RNG = np.random.default_rng(0)
X = {
    "title": RNG.integers(0, 50, (ROWS, 7)).astype("int32"),
    "body": RNG.integers(0, 50, (ROWS, 7)).astype("int32"),
    "tags": RNG.integers(0, 2, (ROWS, 12)).astype("float32"),
}
Y = {
    "priority": RNG.integers(0, 2, (ROWS, 1)).astype("float32"),
    "department": np.eye(4, dtype="float32")[RNG.integers(0, 4, ROWS)],
}


def outputs(model, x):
    return {name: ops.convert_to_numpy(value) for name, value in zip(model.output_names, model(x), strict=True)}


def small(compiled=True):
    model = document_classifier(vocabulary_size=50, max_steps=7, embed_dim=8, dense_dim=8)
    rng = np.random.default_rng(2)
    for weight in model.weights:
        weight.assign(rng.normal(0, 0.3, weight.shape).astype("float32"))
    if compiled:
        model.compile(keras.optimizers.SGD(0.1), loss=LOSSES, loss_weights=LOSS_WEIGHTS)
    return model


def rows():
    """One example at a time: ((inputs), (targets)) dicts."""
    return [({k: v[i] for k, v in X.items()}, {k: v[i] for k, v in Y.items()}) for i in range(ROWS)]


def batches():
    for i in range(0, ROWS, BATCH):
        yield {k: v[i : i + BATCH] for k, v in X.items()}, {k: v[i : i + BATCH] for k, v in Y.items()}


def from_dicts():
    return (X, Y), {"batch_size": BATCH}


def from_lists():
    return (list(X.values()), list(Y.values())), {"batch_size": BATCH}


def from_generator():
    return (batches(),), {"steps_per_epoch": ROWS // BATCH}


def from_tf_data():
    tensorflow = pytest.importorskip("tensorflow", reason="no tensorflow: tf.data is not tested")
    return (tensorflow.data.Dataset.from_tensor_slices((X, Y)).batch(BATCH),), {}


def from_torch():
    data = pytest.importorskip("torch.utils.data", reason="no torch: its DataLoader is not tested")
    return (data.DataLoader(rows(), batch_size=BATCH),), {}


def from_grain():
    if importlib.util.find_spec("grain") is None:
        pytest.skip("no grain: its data sets are not tested")
    import grain

    return (grain.MapDataset.source(rows()).batch(BATCH).to_iter_dataset(),), {"steps_per_epoch": ROWS // BATCH}


SOURCES = [from_dicts, from_lists, from_generator, from_tf_data, from_torch, from_grain]


@pytest.fixture(scope="module")
def expected():
    """The mean of the batches' losses, each taken on its own by `train_on_batch`."""
    model, logs = small(), []
    for x, y in batches():
        model.reset_metrics()
        logs.append(model.train_on_batch(x, y, return_dict=True))
    return {name: np.mean([float(each[name]) for each in logs]) for name in logs[0]}


@pytest.mark.parametrize("source", SOURCES, ids=lambda source: source.__name__)
def test_every_source_gives_the_same_losses(source, expected):
    arguments, options = source()
    history = small().fit(*arguments, **options, epochs=1, shuffle=False, verbose=0).history
    for name in ("loss", "priority_loss", "department_loss"):
        assert history[name][0] == pytest.approx(expected[name], rel=2e-6)


def test_another_order_gives_another_loss(expected):
    backwards = ({k: v[::-1] for k, v in part.items()} for part in (X, Y))
    history = small().fit(*backwards, batch_size=BATCH, shuffle=False, verbose=0).history
    assert history["loss"][0] != pytest.approx(expected["loss"], rel=2e-6)


def test_losses_are_weighted_by_the_name_of_their_output():
    model = small()
    out = {name: value.astype("float64") for name, value in outputs(model, X).items()}
    priority = -(Y["priority"] * np.log(out["priority"]) + (1 - Y["priority"]) * np.log(1 - out["priority"])).mean()
    department = -(Y["department"] * np.log(out["department"])).sum(-1).mean()
    logs = model.evaluate(X, Y, batch_size=ROWS, verbose=0, return_dict=True)
    assert logs["priority_loss"] == pytest.approx(priority, rel=1e-5)
    assert logs["department_loss"] == pytest.approx(department, rel=1e-5)
    assert logs["loss"] == pytest.approx(priority + 0.2 * department, rel=1e-5)
    assert logs["loss"] != pytest.approx(priority + department, rel=1e-2)


def test_shapes_and_counts_with_the_default_sizes():
    model = document_classifier()
    assert model.output_names == ["priority", "department"]
    assert [tuple(each.shape) for each in model.outputs] == [(None, 1), (None, 4)]
    d = 64
    encoder = 4 * (d + 1) * d + 2 * (d + 1) * d + 2 * 2 * d
    assert model.count_params() == 10_000 * d + 2 * encoder + (2 * d + 12 + 1) * (1 + 4)


def test_padding_does_not_change_the_outputs():
    model = small(compiled=False)
    wide = document_classifier(vocabulary_size=50, max_steps=10, embed_dim=8, dense_dim=8)
    wide.set_weights(model.get_weights())
    x = {**X, "title": np.maximum(X["title"], 1), "body": np.maximum(X["body"], 1)}
    padded = {**x, "title": np.pad(x["title"], ((0, 0), (0, 3))), "body": np.pad(x["body"], ((0, 0), (0, 3)))}
    real = {**x, "title": np.pad(x["title"], ((0, 0), (0, 3)), constant_values=1)}
    real["body"] = padded["body"]
    plain, with_pads, with_words = outputs(model, x), outputs(wide, padded), outputs(wide, real)
    for name in plain:
        np.testing.assert_allclose(with_pads[name], plain[name], atol=2e-6)
        assert np.abs(with_words[name] - plain[name]).max() > 1e-3


def test_an_empty_title_gives_finite_outputs():
    out = outputs(small(compiled=False), {**X, "title": np.zeros_like(X["title"])})
    assert all(np.isfinite(value).all() for value in out.values())


def test_saved_and_loaded_it_is_the_same_classifier(tmp_path):
    model = small()
    model.save(tmp_path / "m.keras")
    loaded = keras.saving.load_model(tmp_path / "m.keras")
    assert type(loaded) is type(model)
    before, after = outputs(model, X), outputs(loaded, X)
    for name in before:
        np.testing.assert_array_equal(after[name], before[name])
    losses = [each.evaluate(X, Y, verbose=0, return_dict=True)["loss"] for each in (model, loaded)]
    assert losses[0] == losses[1]


def test_masked_mean_in_a_graph_keeps_static_shapes():
    out = MaskedMean()(keras.Input((5, 3)), keras.Input((5,), dtype="bool"))
    assert out.shape == (None, 3)
