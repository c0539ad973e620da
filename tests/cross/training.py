"""Functions for workers that train from the same weights and batches on every backend."""

import keras
import numpy as np
from keras import ops

from k3seq.layers.sliding.ragged import pack_rows
from k3seq.models.lstm import AttentionSeq2Seq, LSTMSeq2Seq
from k3seq.models.sliding_arithmetic import SlidingArithmetic, dense_batch
from k3seq.models.sliding_seq2seq import SlidingSeq2Seq
from k3seq.models.transformer import TransformerSeq2Seq
from k3seq.random import initialize
from k3seq.train.losses import TokenCrossentropy

SOURCE, TARGET, ROWS, STEPS, PAD, START, END = 12, 14, 8, 7, 0, 1, 2
SIZES = {"rows": 3, "dense": 9, "hidden": 6, "stacks": 2, "vocabulary": 20, "width_dec": 6, "width_enc": 8}
MODELS = {
    "lstm": lambda: LSTMSeq2Seq(SOURCE, TARGET, 8, 16),
    "lstm-attention": lambda: AttentionSeq2Seq(SOURCE, TARGET, 8, 16),
    "transformer": lambda: TransformerSeq2Seq(SOURCE, TARGET, 16, 24, 2, num_layers=1, max_steps=STEPS),
    "sliding": lambda: SlidingSeq2Seq(SOURCE, TARGET, STEPS, STEPS, 8, 24, 1),
}


def batches(count, seed=0):
    """(x, y, weight) of random pairs, rows of 1 to 6 source tokens; the target is the source's tokens, each one higher."""
    draw = np.random.default_rng(seed)
    for _ in range(count):
        lengths = draw.integers(1, STEPS, ROWS).astype("int32")
        keep = np.arange(STEPS)[None, :] < lengths[:, None]
        source = np.where(keep, draw.integers(3, SOURCE, (ROWS, STEPS)), PAD).astype("int32")
        y = np.where(keep, source + 1, PAD)
        y[np.arange(ROWS), lengths] = END
        target = np.concatenate([np.full((ROWS, 1), START), np.where(y == END, PAD, y)[:, :-1]], axis=1)
        weight = np.arange(STEPS)[None, :] <= lengths[:, None]
        x = {"source": source, "source_lengths": lengths, "target": target.astype("int32")}
        yield x, y.astype("int32"), weight.astype("float32")


def values(model):
    return {variable.path: np.array(ops.convert_to_numpy(variable)) for variable in model.trainable_variables}


def losses(model, data):
    found = []
    for batch in data:
        model.reset_metrics()
        found.append(float(model.train_on_batch(*batch, return_dict=True)["loss"]))
    return np.array(found)


def start(payload):
    """{"seed"} -> {kind: {path: starting weight}}."""
    return {kind: values(initialize(make(), payload["seed"])) for kind, make in MODELS.items()}


class StockStep(AttentionSeq2Seq):
    """With Keras' own train step, which squares the parts of an embedding's gradient on TensorFlow."""

    train_step = keras.Model.train_step
    test_step = keras.Model.test_step


def train(payload):
    """{"clip", "stock"} -> the losses of 20 Adam steps of the attention model."""
    model = (StockStep if payload["stock"] else AttentionSeq2Seq)(SOURCE, TARGET, 8, 16)
    initialize(model, 0)
    smoothed = TokenCrossentropy(label_smoothing=0.1)
    model.compile(keras.optimizers.Adam(0.01, global_clipnorm=payload["clip"]), loss=smoothed)
    return {"losses": losses(model, batches(20))}


def sliding_batches(count, seed=0):
    draw = np.random.default_rng(seed)
    for _ in range(count):
        enc = [draw.integers(1, 20, draw.integers(1, 12)) for _ in range(SIZES["rows"])]
        tgt = [draw.integers(1, 20, draw.integers(1, 7)) for _ in range(SIZES["rows"])]
        dec = [row * draw.integers(0, 2, len(row)) for row in tgt]
        yield dense_batch(
            tuple(array for rows in (enc, dec, tgt) for array in pack_rows(rows)), SIZES["width_enc"], SIZES["width_dec"]
        )


def train_sliding(payload):
    """{"seed"} (of the data) -> the losses of 5 Adam steps of the sliding model and its context after each."""
    model = initialize(SlidingArithmetic(*SIZES.values()), 0)
    model.compile(keras.optimizers.Adam(0.01))
    found, contexts = [], []
    for batch in sliding_batches(5, payload["seed"]):
        found.extend(losses(model, [batch]))
        contexts.append(np.array(ops.convert_to_numpy(model.frames.prev)))
    return {"losses": np.array(found), "contexts": contexts}
