"""A model of `k3seq.seq2seq` parts that is trained, saved and decoded in processes of their own, one per backend."""

import keras
import numpy as np
from keras import layers, ops

from k3seq import backend, decode, random
from k3seq.seq2seq import AttentionWrapper, BahdanauAttention, BasicDecoder, SequenceLoss, TrainingSampler

VOCABULARY, STEPS, ROWS, START, END = 9, 5, 8, 1, 2


@keras.saving.register_keras_serializable(package="tests")
class Translator(backend.StepMixin, keras.Model):
    """LSTM encoder, and an LSTM decoder with normalised Bahdanau attention; `dtype` is a policy's name."""

    def __init__(self, units=8, **kwargs):
        super().__init__(**kwargs)
        options = {"dtype": self.dtype_policy}
        self.units, self.embedding = units, layers.Embedding(VOCABULARY, units, name="embedding", **options)
        self.encoder = layers.LSTM(units, return_sequences=True, return_state=True, name="encoder", **options)
        self.attention = BahdanauAttention(units, normalize=True, **options)
        cell = layers.LSTMCell(units, name="cell", **options)
        self.cell = AttentionWrapper(cell, self.attention, attention_layer_size=units, name="wrapper", **options)
        self.output_layer = layers.Dense(VOCABULARY, name="logits", **options)
        self.decoder = BasicDecoder(self.cell, TrainingSampler(), self.output_layer, name="decoder", **options)

    def call(self, inputs):
        state = self.start(inputs)["cell"]
        return self.decoder(self.embedding(inputs["target"]), initial_state=state)[0].rnn_output

    def start(self, inputs):
        memory, h, c = self.encoder(self.embedding(inputs["source"]))
        memory = self.attention.prepare_memory(memory, inputs["source_lengths"])
        state = self.cell.get_initial_state(memory=memory).clone(cell_state=[h, c])
        return {"cell": state, "alignments": state.alignments}

    def step(self, tokens, state):
        output, state = self.cell(self.embedding(tokens), state["cell"])
        return self.output_layer(output), {"cell": state, "alignments": state.alignments}

    def get_config(self):
        return {**super().get_config(), "units": self.units}


def batch():
    """(inputs, labels): rows of 2 to 5 tokens, to be copied."""
    draw = np.random.default_rng(0)
    lengths = draw.integers(2, STEPS + 1, ROWS).astype("int32")
    keep = np.arange(STEPS) < lengths[:, None]
    source = np.where(keep, draw.integers(3, VOCABULARY, (ROWS, STEPS)), 0).astype("int32")
    labels = np.where(keep, source, END).astype("int32")
    target = np.insert(labels, 0, START, axis=1)[:, :-1]
    return {"source": source, "source_lengths": lengths, "target": target}, labels


def built(dtype="float32"):
    """A model with weights; made from symbols, as JAX would compile each operation of an eager call."""
    model = Translator(dtype=dtype, name="translator")  # a weight starts from the seed and its path
    model({name: keras.Input(batch_shape=array.shape, dtype="int32") for name, array in batch()[0].items()})
    return random.initialize(model, 3)


def trained(steps, dtype="float32", jit=None):
    """A model from one seed after some steps of Adam, and their losses."""
    inputs, labels = batch()
    model = built(dtype)
    jit = keras.backend.backend() == "jax" if jit is None else jit
    model.compile(keras.optimizers.Adam(0.02), SequenceLoss(), jit_compile=jit)
    losses = [float(model.train_on_batch(inputs, labels, return_dict=True)["loss"]) for _ in range(steps)]
    return model, losses


def best(model):
    """The five best of every row, tokens and scores."""
    found = decode.beam_search(model, batch()[0], 5, max_steps=STEPS, start=START, end=END)
    return {"tokens": found.tokens, "scores": found.scores}


def write(payload):
    """Trains a model, writes it to the file of the payload, and decodes."""
    model, losses = trained(30)
    model.save(payload["file"])
    return {**best(model), "losses": losses}


def read(payload):
    """Decodes with the model of the file; with one weight moved, too, for a control."""
    model = keras.saving.load_model(payload["file"])
    found = best(model)
    model.attention.memory_layer.kernel.assign(ops.flip(model.attention.memory_layer.kernel, axis=1) * 2)
    return {**found, "moved": best(model)["scores"]}
