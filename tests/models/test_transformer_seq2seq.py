import keras
import numpy as np
import pytest
from keras import ops

from k3seq.errors import UsageError
from k3seq.models.transformer import TransformerSeq2Seq
from k3seq.random import initialize

RNG = np.random.default_rng(0)
INPUTS = {
    "source": RNG.integers(4, 13, (4, 6)).astype("int32"),
    "source_lengths": np.array([6, 3, 1, 5], "int32"),
    "target": RNG.integers(4, 11, (4, 5)).astype("int32"),
}
LABELS = RNG.integers(4, 11, (4, 5)).astype("int32")
WEIGHTS = (np.arange(5)[None] < np.array([[5], [2], [4], [1]])).astype("float32")


def small(**changes):
    return TransformerSeq2Seq(13, 11, **{**dict(embed_dim=8, dense_dim=16, num_heads=2, num_layers=2, max_steps=12), **changes})


def numbers(x):
    return ops.convert_to_numpy(x)


def test_counts_are_those_of_the_parts():
    d, f, depth = 8, 16, 2
    attention, inner, norm = 4 * (d + 1) * d, (d + 1) * f + (f + 1) * d, 2 * d
    encoder, decoder = attention + inner + 2 * norm, 2 * attention + inner + 3 * norm
    assert small().count_params() == (13 + 11) * d + depth * (encoder + decoder) + (d + 1) * 11


def test_all_weights_exist_before_the_first_call():
    model = small()
    before = [w.path for w in model.weights]
    model(INPUTS)
    model.start(INPUTS)
    assert [w.path for w in model.weights] == before and len(set(before)) == len(before)


def test_decoding_step_by_step_gives_the_logits_of_the_whole_target():
    model = small()
    whole = numbers(model(INPUTS))
    assert whole.shape == (4, 5, 11)
    state = model.start(INPUTS, steps=5)
    wrong = model.start({**INPUTS, "source_lengths": np.full(4, 6, "int32")}, steps=5)
    for t in range(5):
        tokens = ops.convert_to_tensor(INPUTS["target"][:, t])
        logits, state = model.step(tokens, state)
        other, wrong = model.step(tokens, wrong)
        np.testing.assert_allclose(numbers(logits), whole[:, t], atol=2e-6)
        assert np.abs(numbers(other) - whole[:, t]).max() > 1e-3  # without the lengths the pads are read


def test_the_state_keeps_its_shapes():
    model = small()
    state = model.start(INPUTS)
    after = model.step(ops.convert_to_tensor(INPUTS["target"][:, 0]), state)[1]
    shapes, shapes_after = (keras.tree.map_structure(lambda leaf: str(leaf.shape), tree) for tree in (state, after))
    assert shapes == shapes_after
    assert all(leaf.shape[0] == 4 for leaf in keras.tree.flatten(state))
    assert state["caches"][0]["key"].shape[1] == 12


def test_source_padding_does_not_change_the_logits():
    model = small()
    padded = {**INPUTS, "source": np.pad(INPUTS["source"], ((0, 0), (0, 4)))}
    expected = numbers(model(INPUTS))
    np.testing.assert_allclose(numbers(model(padded)), expected, atol=1e-5)
    assert np.abs(numbers(model({**padded, "source_lengths": np.full(4, 10, "int32")})) - expected).max() > 1e-3


def test_without_lengths_no_row_is_padded():
    model = small()
    full = numbers(model({**INPUTS, "source_lengths": np.full(4, 6, "int32")}))
    np.testing.assert_allclose(numbers(model([INPUTS["source"], INPUTS["target"]])), full, atol=1e-5)


def test_an_empty_source_gives_finite_logits():
    assert np.isfinite(numbers(small()({**INPUTS, "source_lengths": np.zeros(4, "int32")}))).all()


def test_the_loss_is_the_mean_over_the_weighted_tokens():
    model = small()
    model.compile("sgd")
    logits = numbers(model(INPUTS)).astype("float64")
    log_p = logits - np.log(np.exp(logits).sum(-1, keepdims=True))
    losses = -np.take_along_axis(log_p, LABELS[..., None], -1)[..., 0]
    loss = model.evaluate(INPUTS, LABELS, sample_weight=WEIGHTS, verbose=0)
    assert loss == pytest.approx((losses * WEIGHTS).sum() / WEIGHTS.sum(), rel=1e-5)
    assert abs(loss - losses.mean()) > 1e-3


def test_a_memorised_batch_is_learned():
    model = initialize(small(embed_dim=16, dense_dim=32, num_layers=1), seed=1)
    model.compile(keras.optimizers.Adam(0.01))
    batch = dict(x=INPUTS, y=LABELS, sample_weight=WEIGHTS, return_dict=True)
    history = [float(model.train_on_batch(**batch)["loss"]) for _ in range(60)]
    assert history[0] > 1.5 and history[-1] < 0.2


def test_a_loaded_model_gives_the_same_logits_and_can_be_trained_further(tmp_path):
    model = small(dropout=0.1)
    model.compile("adam")
    model.train_on_batch(INPUTS, LABELS, sample_weight=WEIGHTS)
    model.save(tmp_path / "m.keras")
    loaded = keras.saving.load_model(tmp_path / "m.keras")
    np.testing.assert_array_equal(numbers(loaded(INPUTS)), numbers(model(INPUTS)))
    assert np.abs(numbers(small()(INPUTS)) - numbers(model(INPUTS))).max() > 1e-3
    assert [w.path for w in loaded.weights] == [w.path for w in model.weights]
    loaded.train_on_batch(INPUTS, LABELS, sample_weight=WEIGHTS)
    assert int(loaded.optimizer.iterations) == 2


def test_too_many_steps_are_refused():
    with pytest.raises(UsageError, match="Expected steps to be an integer in 1..12. Received: steps=13"):
        small().start(INPUTS, steps=13)
    with pytest.raises(UsageError, match="at most max_steps=5"):
        small(max_steps=5)(INPUTS)
