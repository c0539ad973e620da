"""The sliding model on text pairs: steps equal the exact pass, training blanks what decoding will, and a task is learned."""

import keras
import numpy as np
import pytest
from keras import ops

from k3seq.errors import UsageError
from k3seq.models.sliding_seq2seq import SlidingSeq2Seq
from k3seq.random import Stream
from k3seq.random.weights import initialize

PAD, START, END = 0, 1, 2
SIZES = {
    "source_vocabulary_size": 9,
    "target_vocabulary_size": 8,
    "width_source": 5,
    "width_target": 5,
    "embed_dim": 12,
    "dense_dim": 40,
    "num_layers": 2,
}


def pairs(seed, rows, shortest=1, longest=4, steps=5):
    """A batch whose target is the source, turned around."""
    rng = np.random.default_rng(seed)
    x = {"source": np.zeros((rows, steps), "int32"), "source_lengths": np.zeros(rows, "int32")}
    x["target"], y, weight = (
        np.zeros((rows, steps), "int32"),
        np.zeros((rows, steps), "int32"),
        np.zeros((rows, steps), "float32"),
    )
    for i, n in enumerate(rng.integers(shortest, longest + 1, rows)):
        tokens = rng.integers(4, 8, n)
        x["source"][i, :n], x["source_lengths"][i] = tokens, n
        x["target"][i, : n + 1], y[i, : n + 1] = [START, *tokens[::-1]], [*tokens[::-1], END]
        weight[i, : n + 1] = 1
    return x, y, weight


def built(seed=0, **sizes):
    model = SlidingSeq2Seq(**{**SIZES, **sizes})
    rng = np.random.default_rng(seed)
    for variable in model.trainable_variables:
        variable.assign(rng.normal(0, 0.2, variable.shape))
    return model


def decoded(model, x, steps=5):
    """Greedy tokens (rows, steps), all after an END replaced by PAD."""
    state, tokens, out = model.start(x), np.full(len(x["source"]), START, "int32"), []
    for _ in range(steps):
        logits, state = model.step(ops.convert_to_tensor(tokens), state)
        tokens = ops.convert_to_numpy(logits).argmax(-1).astype("int32")
        out.append(tokens)
    out = np.stack(out, 1)
    return np.where(np.cumsum(out == END, 1) - (out == END) > 0, PAD, out)


def test_steps_give_the_logits_of_the_whole_pass():
    model, (x, _, _) = built(), pairs(1, 4)
    whole = ops.convert_to_numpy(model(x))
    state = model.start(x)
    for i in range(5):
        before = {name: tuple(value.shape) for name, value in state.items()}
        logits, state = model.step(ops.convert_to_tensor(x["target"][:, i]), state)
        assert {name: tuple(value.shape) for name, value in state.items()} == before
        np.testing.assert_allclose(ops.convert_to_numpy(logits), whole[:, i], rtol=0, atol=1e-5)
    # Another token before is seen: the agreement above is no constant.
    changed = {**x, "target": np.where(x["target"] == 4, 5, x["target"])}
    assert np.abs(ops.convert_to_numpy(model(changed)) - whole).max() > 1e-2


def test_a_position_does_not_depend_on_itself_or_later_ones():
    model, (x, _, _) = built(), pairs(2, 4, shortest=4)
    later = x["target"].copy()
    later[:, 3:] = 7
    first, second = (ops.convert_to_numpy(model({**x, "target": target})) for target in (x["target"], later))
    np.testing.assert_allclose(first[:, :3], second[:, :3], rtol=0, atol=1e-6)
    assert np.abs(first[:, 3:] - second[:, 3:]).max() > 1e-3


def test_padding_and_other_rows_do_not_change_a_row():
    model, (x, _, _) = built(), pairs(3, 4)
    whole = ops.convert_to_numpy(model(x))
    n = int(x["source_lengths"][0])
    alone = {"source": x["source"][:1, :n], "source_lengths": np.array([n], "int32"), "target": x["target"][:1, :3]}
    np.testing.assert_allclose(ops.convert_to_numpy(model(alone)), whole[:1, :3], rtol=0, atol=1e-5)
    dirty = np.where(np.arange(5)[None, :] < x["source_lengths"][:, None], x["source"], 6)
    np.testing.assert_allclose(ops.convert_to_numpy(model({**x, "source": dirty})), whole, rtol=0, atol=1e-5)


def test_the_last_tokens_of_a_long_source_are_read():
    model, (x, _, _) = built(), pairs(4, 4, shortest=4)
    long = {
        **x,
        "source": np.concatenate([np.full((4, 3), 5, "int32"), x["source"]], 1),
        "source_lengths": x["source_lengths"] + 3,
    }
    kept = {**x, "source": long["source"][:, 2:7], "source_lengths": np.full(4, 5, "int32")}
    np.testing.assert_allclose(*(ops.convert_to_numpy(model(inputs)) for inputs in (long, kept)), rtol=0, atol=1e-6)


def test_draws_are_those_of_the_stream_and_lie_within_the_target():
    model, (x, _, _) = built(), pairs(5, 64)
    uniform = Stream(0, "k3seq.models.sliding_seq2seq").uniform((2**14,))
    lengths = (x["target"] != 0).sum(1)
    for step in range(3):
        first = step * 9973
        expected = np.floor(uniform[(first + np.arange(64)) % 2**14] * lengths.astype("float32")).astype("int32")
        found = ops.convert_to_numpy(model._draw(ops.convert_to_tensor(x["target"])))
        np.testing.assert_array_equal(found, expected)
        assert (found < lengths).all() and len(set(found.tolist())) == 5
    assert int(ops.convert_to_numpy(model.draws)) == 3


def test_training_counts_only_the_blanked_tokens():
    x, y, weight = pairs(6, 8, shortest=3)
    losses = []
    for known in (np.full(8, 2), np.full(8, 2), np.full(8, 0)):
        model = built()
        model.compile(optimizer="sgd")
        model._draw = lambda target, known=known: ops.convert_to_tensor(known.astype("int32"))
        spoiled = y.copy()
        if len(losses) == 1:
            spoiled[:, :2] = 3
        loss, y_pred = model.compute_objective(x, ops.convert_to_tensor(spoiled), weight, True)
        losses.append(ops.convert_to_numpy(loss["loss"]).item())
    assert losses[0] == losses[1] != losses[2]
    logits = ops.convert_to_numpy(y_pred).astype("float64")
    logp = logits - np.logaddexp.reduce(logits, axis=-1, keepdims=True)
    expected = -(np.take_along_axis(logp, y[..., None], -1)[..., 0] * weight).sum() / weight.sum()
    assert losses[2] == pytest.approx(expected, rel=1e-5)


def test_it_learns_to_reverse_rows_and_decodes_them():
    model = initialize(SlidingSeq2Seq(9, 8, 3, 3, embed_dim=16, dense_dim=64, num_layers=1), 1)
    model.compile(optimizer=keras.optimizers.Adam(1e-2), jit_compile=keras.backend.backend() != "torch")
    x, y, weight = pairs(7, 64 * 120, longest=2, steps=3)
    unseen, wanted, _ = pairs(1000, 200, longest=2, steps=3)
    before = (decoded(model, unseen, 3) == wanted).all(1).mean()
    model.fit(x, y, sample_weight=weight, batch_size=64, epochs=1, shuffle=False, verbose=0)
    after = (decoded(model, unseen, 3) == wanted).all(1).mean()
    assert before < 0.1 and after > 0.9, (before, after)


def test_evaluation_draws_nothing_and_is_the_exact_loss():
    model, (x, y, weight) = built(), pairs(8, 6)
    model.compile(optimizer="sgd")
    losses, y_pred = model.compute_objective(x, ops.convert_to_tensor(y), weight, False)
    np.testing.assert_allclose(ops.convert_to_numpy(y_pred), ops.convert_to_numpy(model(x)), rtol=0, atol=1e-6)
    assert int(ops.convert_to_numpy(model.draws)) == 0


def test_a_target_wider_than_the_window_is_refused():
    x, _, _ = pairs(9, 2, steps=6)
    with pytest.raises(UsageError, match="Expected targets of at most width_target=5 tokens. Received: shape"):
        built()(x)


def test_a_saved_model_gives_the_same_logits(tmp_path):
    model, (x, _, _) = built(), pairs(10, 3)
    model.draws.assign(17)
    model.save(tmp_path / "sliding.keras")
    loaded = keras.saving.load_model(tmp_path / "sliding.keras")
    np.testing.assert_array_equal(*(ops.convert_to_numpy(each(x)) for each in (model, loaded)))
    assert int(ops.convert_to_numpy(loaded.draws)) == 17
    assert [v.path for v in loaded.variables] == [v.path for v in model.variables]
