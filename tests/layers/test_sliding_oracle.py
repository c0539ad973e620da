"""The sliding-context model against its definition in float64 (`oracles.sliding`): windows, logits, loss and gradients.

Every comparison has a negative control that must fail: the same definition with two weights exchanged, lengths shifted by one,
or an empty context.
"""

import keras
import numpy as np
import pytest
from keras import ops

import golden
from k3seq import backend
from k3seq.layers.sliding.blocks import Attention, last_positions
from k3seq.layers.sliding.ragged import pack_rows
from k3seq.models.sliding_arithmetic import SlidingArithmetic, dense_batch
from oracles import sliding

TOLERANCE = 1e-5  # spec S3: of the largest value
FAILS = 10 * TOLERANCE
SHAPES = {
    "source": {
        "batch_size": 5,
        "dense_dim": 150,
        "embed_dim": 6,
        "num_layers": 2,
        "vocabulary_size": 20,
        "width_dec": 15,
        "width_enc": 25,
    },
    "decoder-wider": {
        "batch_size": 3,
        "dense_dim": 9,
        "embed_dim": 4,
        "num_layers": 1,
        "vocabulary_size": 11,
        "width_dec": 9,
        "width_enc": 5,
    },
    "three-stacks": {
        "batch_size": 2,
        "dense_dim": 12,
        "embed_dim": 3,
        "num_layers": 3,
        "vocabulary_size": 7,
        "width_dec": 4,
        "width_enc": 8,
    },
    "one-row": {
        "batch_size": 1,
        "dense_dim": 5,
        "embed_dim": 2,
        "num_layers": 2,
        "vocabulary_size": 6,
        "width_dec": 3,
        "width_enc": 3,
    },
}
PATHS = (
    ("enc_", "encode/encoder_"),
    ("dec_", "decode/decoder_"),
    (".refl.", "/reflect/"),
    (".cnsd.", "/consider/"),
    (".conc.", "/conclude/"),
    ("infl.", "inflate/"),
    ("defl.", "deflate/"),
    ("dbd.", "debed/project/"),
    ("kern", "kernel"),
)


def path(name):
    """The variable's path in the model, without the model's own name, of a weight of the oracle."""
    for short, long in PATHS:
        name = name.replace(short, long)
    return "embed/embeddings" if name == "emb" else name


def pair(sizes, seed=0):
    """A model and the weights that were put into it, in the oracle's names."""
    weights = sliding.random_weights(
        seed,
        width_enc=sizes["width_enc"],
        width_dec=sizes["width_dec"],
        hidden=sizes["embed_dim"],
        dense=sizes["dense_dim"],
        stack=sizes["num_layers"],
        vocabulary=sizes["vocabulary_size"],
    )
    model = SlidingArithmetic(**sizes)
    for variable, name in variables(model, weights):
        variable.assign(weights[name].astype("float32"))
    return model, {name: w.astype("float32").astype("float64") for name, w in weights.items()}


def variables(model, weights):
    """(variable, the oracle's name) of every trainable variable; a path too many or too few is an error."""
    if not model.built:
        model.build(None)
    names = {path(name): name for name in weights}
    found = [next(p for p in names if v.path == p or v.path.endswith("/" + p)) for v in model.trainable_variables]
    assert sorted(found) == sorted(names)
    return [(v, names[p]) for v, p in zip(model.trainable_variables, found, strict=True)]


def calls(sizes, seed=0):
    """Ragged rows of five calls: random ones, then empty encoder rows, then rows longer than the encoder's window."""
    rng = np.random.default_rng(seed)
    batch, width_enc, width_dec = sizes["batch_size"], sizes["width_enc"], sizes["width_dec"]

    def rows(low, high):
        lengths = rng.integers(low, high + 1, batch)
        return [rng.integers(3, sizes["vocabulary_size"], length).tolist() for length in lengths]

    for low, high in ((0, width_enc - 1), (1, width_enc), (0, 0), (width_enc + 1, 2 * width_enc), (0, 2 * width_enc)):
        enc, tgt = rows(low, high), rows(0, width_dec - 1)
        tgt[0] = (tgt[0] or [3])[: width_dec - 1] + [2]  # one target at least, so that there is a loss
        yield enc, [[token * int(rng.integers(0, 2)) for token in row] for row in tgt], tgt


def inputs(enc, dec, tgt, sizes, form):
    """The model's two forms of input, and the targets."""
    arrays = tuple(array for rows in (enc, dec, tgt) for array in pack_rows(rows))
    dense, y = dense_batch(arrays, sizes["width_enc"], sizes["width_dec"])
    return (arrays if form == "ragged" else dense), y


def prev_of(model):
    return ops.convert_to_numpy(model.frames.prev)


def shifted(rows):
    """The rows with their last token doubled or a new one where there is none: every length one more."""
    return [row + (row[-1:] or [3]) for row in rows]


def late(rows):
    """The rows one step late, as a target shifted by mistake would be: as long as before."""
    return [[0, *row][: len(row)] for row in rows]


def exchanged(weights):
    """Keys and values of the last decoder block's cross-attention, exchanged."""
    last = f"dec_{sliding.stacks(weights, 'dec') - 1}.cnsd."
    return weights | {last + "k": weights[last + "v"], last + "v": weights[last + "k"]}


@pytest.mark.parametrize(("shape", "form"), [("source", "dense"), ("decoder-wider", "ragged")])
def test_eager_logits_loss_and_context_equal_float64_over_successive_calls(shape, form):
    sizes = SHAPES[shape]
    model, weights = pair(sizes)
    prev = np.zeros((sizes["batch_size"], sizes["width_enc"]), int)
    for number, (enc, dec, tgt) in enumerate(calls(sizes)):
        logits, after = sliding.forward(weights, prev, enc, dec, tgt)
        x, y = inputs(enc, dec, tgt, sizes, form)
        losses, found = model.objective(x, ops.convert_to_tensor(y), None, False)
        found = ops.convert_to_numpy(found)[:, : logits.shape[1]]
        loss = float(ops.convert_to_numpy(losses["crossentropy"]))
        assert golden.relative_error(found, logits) < TOLERANCE, number
        assert golden.relative_error(loss, sliding.loss(logits, tgt)) < TOLERANCE, number
        assert np.array_equal(prev_of(model), after), number

        wrong, _ = sliding.forward(exchanged(weights), prev, enc, dec, tgt)
        assert golden.relative_error(found, wrong) > FAILS, number
        assert golden.relative_error(loss, sliding.loss(logits, late(tgt))) > FAILS, number
        forgotten, _ = sliding.forward(weights, np.zeros_like(prev), enc, dec, tgt)
        fresh = all(len(row) >= sizes["width_enc"] for row in enc) or not prev.any()
        assert (golden.relative_error(found, forgotten) > FAILS) is not fresh, number
        _, moved = sliding.forward(weights, prev, enc, dec, shifted(tgt))
        assert not np.array_equal(prev_of(model), moved), number
        prev = after


@pytest.mark.parametrize("shape", SHAPES)
def test_compiled_logits_and_loss_equal_float64_over_successive_calls(shape):
    sizes = SHAPES[shape]
    model, weights = pair(sizes, seed=1)
    model.compile(jit_compile=keras.backend.backend() != "torch")
    prev = np.zeros((sizes["batch_size"], sizes["width_enc"]), int)
    for number, (enc, dec, tgt) in enumerate(calls(sizes, seed=1)):
        logits, after = sliding.forward(weights, prev, enc, dec, tgt)
        x, y = inputs(enc, dec, tgt, sizes, "dense")
        found = model.predict_on_batch(x)[:, : logits.shape[1]]
        assert golden.relative_error(found, logits) < TOLERANCE, number
        assert golden.relative_error(found, sliding.forward(exchanged(weights), prev, enc, dec, tgt)[0]) > FAILS, number
        assert np.array_equal(prev_of(model), after), number

        model.frames.prev.assign(prev)
        model.reset_metrics()
        loss = float(model.test_on_batch(x, y, return_dict=True)["loss"])
        assert golden.relative_error(loss, sliding.loss(logits, tgt)) < TOLERANCE, number
        assert golden.relative_error(loss, sliding.loss(logits, late(tgt))) > FAILS, number
        assert np.array_equal(prev_of(model), after), number
        prev = after


@pytest.mark.parametrize("lengths", [[0, 0], [1, 0], [2, 3], [4, 1], [9, 2]])
def test_only_the_last_positions_are_queries(lengths):
    rng = np.random.default_rng(2)
    x, context = rng.normal(size=(2, 4, 3)).astype("float32"), rng.normal(size=(2, 5, 3)).astype("float32")
    weights = {letter: rng.normal(size=(3, 3)).astype("float32") for letter in "qkv"}
    layer = Attention(3)
    layer.build(None)
    layer.set_weights([weights[letter] for letter in "qkv"])
    found = ops.convert_to_numpy(layer(x, context, last_positions(ops.convert_to_tensor(lengths, "int32"), 4)))
    wide = {letter: w.astype("float64") for letter, w in weights.items()}
    assert golden.relative_error(found, sliding.attention(x, np.array(lengths), context, wide)) < TOLERANCE
    other = max(lengths) - 1 if max(lengths) in (1, 3, 4) else 2
    others = [2] if other == 0 else [other]
    assert golden.relative_error(found, sliding.attention(x, np.array(others), context, wide)) > FAILS


def test_gradients_of_the_loss_equal_differences_in_float64():
    sizes = SHAPES["three-stacks"] | {"num_layers": 2}
    model, weights = pair(sizes, seed=3)
    first, second = list(calls(sizes, seed=3))[:2]
    zeros = np.zeros((sizes["batch_size"], sizes["width_enc"]), int)
    prev = sliding.forward(weights, zeros, *first)[1]
    x, y = inputs(*second, sizes, "dense")
    named = variables(model, weights)
    state = [(model.frames.prev, ops.convert_to_tensor(prev, "int32"))]

    def loss(values):
        mapping = [(variable, value) for (variable, _), value in zip(named, values, strict=True)]
        with keras.StatelessScope(state_mapping=mapping + state):
            return model.objective(x, ops.convert_to_tensor(y), None, True)[0]["crossentropy"]

    value, gradients = backend.value_and_grad(loss)([ops.convert_to_tensor(v.value) for v, _ in named])
    expected = sliding.loss(sliding.forward(weights, prev, *second)[0], second[2])
    assert golden.relative_error(float(ops.convert_to_numpy(value)), expected) < TOLERANCE
    gradients = {name: ops.convert_to_numpy(g) for (_, name), g in zip(named, gradients, strict=True)}
    for name, gradient in gradients.items():
        indices, gradients = sliding.loss_gradient(weights, prev, *second, name=name, count=8)
        scale = np.abs(gradient).max()
        assert scale > 0.0, name
        assert np.abs(gradient[indices] - gradients).max() < TOLERANCE * scale, name
        others = np.roll(gradient, 1)[indices]
        assert np.abs(others - gradients).max() > FAILS * scale, name
