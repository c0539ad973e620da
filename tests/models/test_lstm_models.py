"""LSTM encoder-decoders: one model against float64, teacher forcing against steps, padding, losses, files."""

import keras
import numpy as np
import pytest
from keras import ops

from golden import relative_error
from k3seq import decode
from k3seq.decode import Greedy
from k3seq.errors import UsageError
from k3seq.models.lstm import AttentionSeq2Seq, LSTMSeq2Seq
from k3seq.random import initialize
from k3seq.train.losses import TokenCrossentropy
from oracles import attention as attention_oracle
from oracles import lstm as lstm_oracle

MODELS = {"lstm": LSTMSeq2Seq, "lstm-attention": AttentionSeq2Seq}
kinds = pytest.mark.parametrize("kind", MODELS)


def model(kind, num_layers=1, **options):
    made = MODELS[kind](9, 11, embed_dim=6, units=8, num_layers=num_layers, **options)
    initialize(made, 3)
    for variable in made.trainable_variables:  # biases away from zero, so that they are seen
        if variable.name == "bias":
            variable.assign(np.linspace(-0.5, 0.5, variable.shape[0]))
    return made


def batch(rows=4, source_steps=7, target_steps=5, seed=0):
    draw = np.random.default_rng(seed)
    return {
        "source": draw.integers(0, 9, (rows, source_steps)).astype("int32"),
        "source_lengths": np.array([7, 1, 4, 2][:rows], "int32"),
        "target": draw.integers(0, 11, (rows, target_steps)).astype("int32"),
    }


def weights(made, prefix):
    return {
        variable.path.removeprefix(prefix + "/"): ops.convert_to_numpy(variable).astype("float64")
        for variable in made.variables
        if variable.path.startswith(prefix + "/")
    }


def expected_logits(made, inputs):
    """The one-layer model in float64 from the oracles."""
    encoder, decoder, output = (weights(made, name) for name in ("encoder", "decoder", "output"))

    def under(values, prefix):
        return {name.removeprefix(prefix): value for name, value in values.items() if name.startswith(prefix)}

    source = encoder["embedding/embeddings"][inputs["source"]]
    target = decoder["embedding/embeddings"][inputs["target"]]
    mask = lstm_oracle.length_mask(inputs["source_lengths"], source.shape[1])
    if isinstance(made, LSTMSeq2Seq):
        _, states = lstm_oracle.lstm(source, under(encoder, "lstm_0/"), mask)
        outputs, _ = lstm_oracle.lstm(target, under(decoder, "lstm_0/"), None, states)
        return outputs @ output["kernel"] + output["bias"]
    directions = (under(encoder, "lstm_0/forward/"), under(encoder, "lstm_0/backward/"))
    memory, forward, backward = lstm_oracle.bidirectional(source, *directions, mask)
    states = tuple(np.concatenate(pair, axis=-1) for pair in zip(forward, backward, strict=True))
    outputs, _ = lstm_oracle.lstm(target, under(decoder, "lstm_0/"), None, states)
    kernels = weights(made, "attention")
    logits = []
    for step in range(outputs.shape[1]):
        scores = attention_oracle.luong_general(outputs[:, step], memory, kernels["key_kernel"])
        context = attention_oracle.context(attention_oracle.softmax(scores, mask), memory)
        attended = np.tanh(np.concatenate([context, outputs[:, step]], -1) @ kernels["output_kernel"])
        logits.append(attended @ output["kernel"] + output["bias"])
    return np.stack(logits, axis=1)


@kinds
def test_logits_equal_float64(kind):
    made, inputs = model(kind), batch()
    logits = ops.convert_to_numpy(made(inputs))
    assert relative_error(logits, expected_logits(made, inputs)) < 2e-6
    shifted = {**inputs, "source_lengths": inputs["source_lengths"] % 7 + 1}
    assert relative_error(logits, expected_logits(made, shifted)) > 1e-4


@kinds
@pytest.mark.parametrize("num_layers", [1, 2])
def test_steps_give_the_logits_of_the_whole_target(kind, num_layers):
    made, inputs = model(kind, num_layers), batch()
    expected, state = ops.convert_to_numpy(made(inputs)), made.start(inputs)
    for t in range(expected.shape[1]):
        logits, state = made.step(ops.convert_to_tensor(inputs["target"][:, t]), state)
        assert relative_error(ops.convert_to_numpy(logits), expected[:, t]) < 2e-6


@kinds
def test_padding_does_not_change_the_logits(kind):
    made, inputs = model(kind), batch()
    longer = {**inputs, "source": np.pad(inputs["source"], ((0, 0), (0, 3)), constant_values=5)}
    assert relative_error(ops.convert_to_numpy(made(longer)), ops.convert_to_numpy(made(inputs))) < 1e-6
    unmasked = {key: value for key, value in longer.items() if key != "source_lengths"}
    assert relative_error(ops.convert_to_numpy(made(unmasked)), ops.convert_to_numpy(made(inputs))) > 1e-4


@kinds
def test_greedy_decoding_equals_argmax_of_the_teacher_forced_logits(kind):
    made, inputs = model(kind), batch()
    decoded = Greedy(made, max_steps=6, end=10)({key: inputs[key] for key in ("source", "source_lengths")})
    target = np.concatenate([np.ones((4, 1), "int32"), decoded.tokens[:, :-1]], axis=1)
    best = ops.convert_to_numpy(made({**inputs, "target": target})).argmax(-1)
    for row in range(4):
        upto = decoded.lengths[row] + 1
        np.testing.assert_array_equal(decoded.tokens[row, :upto], best[row, :upto])


def test_sparse_and_one_hot_labels_give_the_same_losses_from_ln_500_on():
    draw = np.random.default_rng(0)
    source, target = (draw.integers(0, 500, (8, steps)).astype("int32") for steps in (30, 20))
    one_hot = np.eye(500, dtype="float32")[target]
    sparse, dense = keras.losses.SparseCategoricalCrossentropy, keras.losses.CategoricalCrossentropy
    losses = []
    for labels, loss in (
        (target, None),
        (target, sparse(from_logits=True)),
        (one_hot, TokenCrossentropy()),
        (one_hot, dense(from_logits=True)),
    ):
        made = initialize(LSTMSeq2Seq(), 0)
        made.compile(keras.optimizers.Adam(1e-2), loss=loss, jit_compile=False)
        losses.append([made.train_on_batch([source, target], labels, return_dict=True)["loss"] for _ in range(2)])
    losses = np.array(losses)
    np.testing.assert_allclose(losses[:, 0], np.log(500), atol=0.02)
    np.testing.assert_allclose(losses, np.broadcast_to(losses[0], losses.shape), rtol=1e-5)
    assert losses[0, 1] < losses[0, 0]


@kinds
def test_saved_and_loaded_it_decodes_the_same(kind, tmp_path):
    made, inputs = model(kind, num_layers=2), batch()
    made.save(tmp_path / "model.keras")
    again = keras.saving.load_model(tmp_path / "model.keras")
    assert [variable.path for variable in again.variables] == [variable.path for variable in made.variables]
    np.testing.assert_array_equal(ops.convert_to_numpy(again(inputs)), ops.convert_to_numpy(made(inputs)))


@kinds
def test_dropout_works_in_training_only(kind):
    made, inputs = model(kind, dropout=0.5), batch()
    evaluated = ops.convert_to_numpy(made(inputs))
    np.testing.assert_array_equal(ops.convert_to_numpy(made(inputs, training=False)), evaluated)
    assert np.abs(ops.convert_to_numpy(made(inputs, training=True)) - evaluated).max() > 1e-3


@kinds
def test_an_empty_source_row_gives_finite_logits(kind):
    inputs = {**batch(), "source_lengths": np.array([0, 7, 0, 3], "int32")}
    assert np.isfinite(ops.convert_to_numpy(model(kind)(inputs))).all()


def test_decoding_returns_the_attention_of_each_step():
    source = np.array([[4, 5, 6, 7], [5, 6, 0, 0]], "int32")
    inputs = {"source": source, "source_lengths": np.array([4, 2], "int32")}
    made = initialize(AttentionSeq2Seq(9, 9, embed_dim=4, units=8), 0)
    made.attention.key_kernel.assign(1e3 * made.attention.key_kernel)  # untrained, its attention is almost uniform
    decoded = decode.beam_search(made, inputs, beam_width=3, max_steps=5, processors=[decode.CoveragePenalty(0.2)])
    for row in range(2):
        for k, length in enumerate(decoded.lengths[row]):
            used = decoded.alignments[row, k, : length + 1]
            np.testing.assert_allclose(used.sum(-1), 1.0, atol=1e-5)
    assert np.all(decoded.alignments[1, :, :, 2:] == 0) and np.abs(decoded.alignments[0, 0, 0] - 0.25).max() > 1e-3
    with pytest.raises(UsageError, match="alignments"):
        lstm = initialize(LSTMSeq2Seq(9, 9, embed_dim=4, units=8), 0)
        decode.beam_search(lstm, inputs, beam_width=3, max_steps=5, processors=[decode.CoveragePenalty(0.2)])
