"""Every layer with a file format and every model, small, with inputs; what a worker does to save, load and measure them.

A layer is wrapped in a functional model. All inputs come from NumPy, so that they are the same on every backend.
"""

import zlib
from pathlib import Path

import keras
import numpy as np
from keras import ops, tree

from k3seq.layers import LSTM, BidirectionalLSTM, GlobalAttention
from k3seq.layers.embedding import TokenEmbedding
from k3seq.layers.frames import Frames
from k3seq.layers.positions import PositionEmbedding, SinusoidalPositions
from k3seq.layers.ragged import ToDense, pack_rows
from k3seq.layers.sliding import Attention, Conclusion, Debed, Decode, Decoder, Embed, Encode, Encoder
from k3seq.layers.transformer import AddNorm, MultiHeadAttention, TransformerDecoder, TransformerEncoder
from k3seq.models.book import book_decoder
from k3seq.models.document import MaskedMean, document_classifier
from k3seq.models.lstm import AttentionSeq2Seq, LSTMDecoder, LSTMEncoder, LSTMSeq2Seq
from k3seq.models.sliding import SlidingArithmetic, dense_batch
from k3seq.models.sliding_seq2seq import SlidingSeq2Seq
from k3seq.models.transformer import TransformerSeq2Seq
from k3seq.models.vae import VAE

# Few sizes: JAX compiles the initialisers and operations of every new shape.
B, S, T, D, V = 3, 5, 4, 6, 20
LENGTHS = np.array([5, 1, 3], "int32")
MASK = np.arange(S)[None, :] < LENGTHS[:, None]
_draw = np.random.default_rng(0)


def floats(*shape):
    return _draw.normal(size=shape).astype("float32")


def tokens(*shape, high=V):
    return _draw.integers(1, high, shape).astype("int32")


X, MEMORY, STATE = floats(B, S, D), floats(B, S, D), floats(B, D)
FRAMES = {
    "enc": tokens(B, S),
    "enc_lengths": LENGTHS,
    "dec": tokens(B, T),
    "dec_lengths": np.array([1, 4, 0], "int32"),
    "tgt": tokens(B, S),
    "tgt_lengths": np.array([2, 5, 1], "int32"),
}
PAIRS = {"source": tokens(B, S), "source_lengths": LENGTHS, "target": tokens(B, T)}
VALUES, SPLITS = pack_rows([[3, 4], [], [5, 6, 7]])
STREAM = dense_batch(
    tuple(array for rows in ([[3, 4, 5], [6], [7, 8]], [[0, 5], [6], [0]], [[4, 5], [6], [9]]) for array in pack_rows(rows)),
    S,
    T,
)[0]


def wrap(call, arrays):
    """A functional model of `call(**inputs)`, with an input like each of the arrays (of any batch)."""
    inputs = {name: keras.Input(array.shape[1:], dtype=str(array.dtype), name=name) for name, array in arrays.items()}
    return keras.Model(inputs, call(**inputs))


def frames(**inputs):
    return Frames(S, T, B, name="frames")(*((inputs[name], inputs[f"{name}_lengths"]) for name in ("enc", "dec", "tgt")))


def lstm_with_states(x, h, c):
    return LSTM(D, name="lstm")(x, None, (h, c))


def lstm_decoder(target, h, c):
    return LSTMDecoder(V, D, D, name="decoder")(target, [(h, c)])


QUERIES = {"x": X, "queries": ~MASK}
CONTEXT = {**QUERIES, "context": floats(B, S, D)}
STATES = {"h": STATE, "c": floats(B, D)}

LAYERS = {
    "LSTM": (lambda: LSTM(D, name="lstm"), {"x": X, "lengths": LENGTHS}),
    "LSTM-with-states": (lambda: lstm_with_states, {"x": X, **STATES}),
    "BidirectionalLSTM": (lambda: BidirectionalLSTM(D // 2, name="both"), {"x": X, "lengths": LENGTHS}),
    "GlobalAttention": (
        lambda: GlobalAttention(D, name="attention"),
        {"query": floats(B, T, D), "keys": floats(B, S, D), "memory": MEMORY, "memory_mask": MASK},
    ),
    "MultiHeadAttention": (lambda: MultiHeadAttention(2, D // 2, name="heads"), {"query": X, "memory": MEMORY}),
    "AddNorm": (lambda: AddNorm(0.1, name="add_norm"), {"x": X, "y": floats(B, S, D)}),
    "TransformerEncoder": (lambda: TransformerEncoder(D, D, 2, D // 2, dropout=0.1, name="encoder"), {"x": X, "mask": MASK}),
    "TransformerDecoder": (
        lambda: TransformerDecoder(D, D, 2, D // 2, name="decoder"),
        {"x": floats(B, T, D), "memory": MEMORY, "memory_mask": MASK},
    ),
    "TokenEmbedding": (lambda: TokenEmbedding(V, D, scale=True, name="embedding"), {"tokens": tokens(B, S)}),
    "TokenEmbedding-sinusoidal": (lambda: TokenEmbedding(V, D, "sinusoidal", 9, name="embedding"), {"tokens": tokens(B, S)}),
    "TokenEmbedding-learned": (
        lambda: TokenEmbedding(V, D, "learned", 9, name="embedding"),
        {"tokens": tokens(B, S), "offset": np.array([0, 4, 2], "int32")},
    ),
    "SinusoidalPositions": (lambda: SinusoidalPositions(9, name="positions"), {"x": X}),
    "PositionEmbedding": (lambda: PositionEmbedding(9, name="positions"), {"x": X}),
    "Frames": (lambda: frames, FRAMES),
    "ToDense": (lambda: ToDense(4, "last", name="dense"), {"values": VALUES, "row_splits": SPLITS.astype("int32")}),
    "Embed": (lambda: Embed(V, D, name="embed"), {"tokens": tokens(B, S)}),
    "Attention": (lambda: Attention(D, name="attention"), CONTEXT),
    "Conclusion": (lambda: Conclusion(S, D, D, name="conclude"), {"x": X}),
    "Encoder": (lambda: Encoder(S, D, D, name="encoder"), {**QUERIES, "x_mask": MASK}),
    "Decoder": (lambda: Decoder(S, D, D, name="decoder"), CONTEXT),
    "Encode": (lambda: Encode(S, D, D, 2, name="encode"), QUERIES),
    "Decode": (lambda: Decode(S, D, D, 2, name="decode"), {**CONTEXT, "x_mask": MASK}),
    "Debed": (lambda: Debed(V, D, name="debed"), {"x": X, "lengths": LENGTHS}),
    "LSTMEncoder": (lambda: LSTMEncoder(V, D, D, 2, True, name="encoder"), {"tokens": PAIRS["source"], "lengths": LENGTHS}),
    "LSTMDecoder": (lambda: lstm_decoder, {"target": PAIRS["target"], **STATES}),
    "MaskedMean": (lambda: MaskedMean(name="mean"), {"x": X, "keep": MASK}),
}
MODELS = {
    "LSTMSeq2Seq": (lambda: LSTMSeq2Seq(V, V, D, D), PAIRS),
    "AttentionSeq2Seq": (lambda: AttentionSeq2Seq(V, V, D, D, dropout=0.1), PAIRS),
    "TransformerSeq2Seq": (lambda: TransformerSeq2Seq(V, V, D, D, 2, depth=1, max_steps=7), PAIRS),
    "SlidingArithmetic": (lambda: SlidingArithmetic(B, D, D, 1, V, T, S), STREAM),
    "SlidingArithmetic-masked": (lambda: SlidingArithmetic(B, D, D, 2, V, T, S, faithful=False), STREAM),
    "SlidingSeq2Seq": (lambda: SlidingSeq2Seq(V, V, S, T, D, D, 1), PAIRS),
    "BookDecoder": (
        lambda: book_decoder(V, D, D),
        {"encoder_tokens": tokens(B, S), "decoder_tokens": tokens(B, T), "sequence_lengths": np.array([4, 0, 2], "int32")},
    ),
    "DocumentClassifier": (
        lambda: document_classifier(V, S, 3, 4, D, D, 2),
        {"title": tokens(B, S) * MASK, "body": tokens(B, S), "tags": floats(B, 3)},
    ),
    "VAE": (lambda: VAE(2, (8, 8, 1)), {"image": np.abs(floats(B, 8, 8, 1)), "noise": floats(B, 2)}),
}
ENTRIES = {**LAYERS, **MODELS}


def made(name):
    factory, inputs = ENTRIES[name]
    return factory() if name in MODELS else wrap(factory(), inputs)


def outputs(model, inputs):
    """What a call returns, as a flat list of arrays; a functional model of a list of inputs takes them in their order."""
    tensors = {name: ops.convert_to_tensor(array) for name, array in inputs.items()}
    if isinstance(getattr(model, "_inputs_struct", None), (list, tuple)):
        tensors = list(tensors.values())
    return [np.array(ops.convert_to_numpy(leaf)) for leaf in tree.flatten(model(tensors))]


def facts(model, inputs):
    """Paths, shapes and kinds of the weights, the outputs of a call, and the state after it (`Frames.prev`).

    The seeds of dropout are variables too, but no weights: Keras gives them another type on torch and numbers their paths.
    """
    return {
        "weights": [[v.path, list(v.shape), str(v.dtype), v.trainable] for v in model.weights],
        "outputs": outputs(model, inputs),
        "state": [np.array(ops.convert_to_numpy(v)) for v in model.non_trainable_weights],
    }


def file_of(folder, name, writer):
    return Path(folder, f"{name}-{writer}.keras")


def save(payload):
    """{"folder", "backend"} -> {entry: facts}. Weights are drawn by backend: a reader that did not read them would be seen."""
    found = {}
    for name, (_, inputs) in ENTRIES.items():
        model = made(name)
        draw = np.random.default_rng(zlib.crc32(f"{name} {payload['backend']}".encode()))
        for variable in model.trainable_variables:
            scale = 0.4 if len(variable.shape) < 2 else np.prod(variable.shape[:-1]) ** -0.5
            variable.assign(draw.normal(0, scale, tuple(variable.shape)).astype("float32"))
        if model.non_trainable_weights:  # a context, zeros at first
            outputs(model, inputs)
            outputs(model, inputs)
        model.save(file_of(payload["folder"], name, payload["backend"]))
        found[name] = facts(model, inputs)
    return found


def load(payload):
    """{"folder", "writers"} -> {writer: {entry: facts}}."""
    found = {}
    for writer in payload["writers"]:
        models = {name: keras.saving.load_model(file_of(payload["folder"], name, writer)) for name in ENTRIES}
        found[writer] = {name: facts(model, ENTRIES[name][1]) for name, model in models.items()}
    return found


def moved(payload):
    """{"folder", "writer"} -> {entry: the outputs after one weight or, in an entry without any, one input was moved}."""
    return {name: _moved(keras.saving.load_model(file_of(**payload, name=name)), ENTRIES[name][1]) for name in ENTRIES}


def _moved(model, inputs):
    weights = model.trainable_weights or model.non_trainable_weights
    if not weights:
        first, array = next(iter(inputs.items()))
        return outputs(model, {**inputs, first: array + np.asarray(1, array.dtype)})
    value = ops.convert_to_numpy(weights[-1]).copy()
    if value.dtype.kind == "i":
        value += 1
    else:
        value[..., 0] += 1e-2  # not all alike: a softmax would not see that
    weights[-1].assign(value)
    return outputs(model, inputs)
