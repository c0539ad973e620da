"""A subclassed LSTM encoder-decoder: it learns to reverse sequences, and decodes from a start token on.

Run it as `KERAS_BACKEND=jax python examples/encoder_decoder.py --steps 600 --trace`, with any backend.
"""

import argparse

import keras
import numpy as np

from k3seq.data import pad
from k3seq.data.tokenizers import END, PAD, START
from k3seq.decode import Greedy
from k3seq.inspect import shape_trace
from k3seq.layers import LSTM
from k3seq.models import Seq2Seq
from k3seq.random import initialize

VOCABULARY, EMBEDDING, UNITS, SOURCE_STEPS, TARGET_STEPS = 500, 50, 64, 30, 20


class Reader(keras.layers.Layer):
    """Tokens (b, steps) with lengths or initial states -> (outputs (b, steps, UNITS), last states)."""

    def __init__(self, **kwargs):
        super().__init__(**kwargs)
        self.embedding = keras.layers.Embedding(VOCABULARY, EMBEDDING, name="embedding")
        self.lstm = LSTM(UNITS, name="lstm")

    def build(self, tokens_shape):
        self.embedding.build(tokens_shape)
        self.lstm.build((*tokens_shape, EMBEDDING))

    def call(self, tokens, lengths=None, states=None):
        return self.lstm(self.embedding(tokens), lengths, states)


class EncoderDecoder(Seq2Seq):
    """The decoder starts from the encoder's last states, its only view of the source (Sutskever et al. 2014)."""

    def __init__(self, **kwargs):
        super().__init__(**kwargs)
        self.encoder, self.decoder = Reader(name="encoder"), Reader(name="decoder")
        self.logits = keras.layers.Dense(VOCABULARY, name="output")
        self.encoder.build((None, SOURCE_STEPS))
        self.decoder.build((None, TARGET_STEPS))
        self.logits.build((None, TARGET_STEPS, UNITS))
        self.built = True

    def call(self, inputs):
        # Training: the correct previous tokens are given, so that all steps are computed at once.
        outputs, _ = self.decoder(inputs["target"], states=self.start(inputs)["states"])
        return self.logits(outputs)

    def start(self, inputs):
        # Decoding: the source is encoded once ...
        return {"states": self.encoder(inputs["source"], inputs["source_lengths"])[1]}

    def step(self, tokens, state):
        # ... then each step gets the last predicted token and the last states.
        outputs, states = self.decoder(tokens[:, None], states=state["states"])
        return self.logits(outputs[:, 0]), {"states": states}


def reversals(rows, rng):
    """(x, y, weight): 2 to 4 of ten tokens, and the same tokens reversed. Targets start with START; y ends with END."""
    words = [rng.integers(4, 14, rng.integers(2, 5)) for _ in range(rows)]
    y = pad([[*row[::-1], END] for row in words], TARGET_STEPS)
    x = {"source": pad(words, SOURCE_STEPS), "source_lengths": np.array([len(row) for row in words], "int32")}
    return {**x, "target": pad([[START, *row[::-1]] for row in words], TARGET_STEPS)}, y, (y != PAD).astype("float32")


def main(arguments=None):
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--steps", type=int, default=600, help="training steps, of 64 pairs")
    parser.add_argument("--trace", action="store_true", help="print the shapes of the inputs and outputs of each layer")
    options, rng = parser.parse_args(arguments), np.random.default_rng(0)
    model = initialize(EncoderDecoder(), seed=0)
    model.compile(keras.optimizers.Adam(5e-3))
    parameters = {layer.name: layer.count_params() for layer in model.layers}
    print(f"{model.count_params():,} parameters: {parameters}")
    x, y, weight = reversals(128, rng)
    trace = shape_trace(model, x) if options.trace else []
    print(*trace, sep="\n", end="\n" if trace else "")
    first = model.evaluate(x, y, sample_weight=weight, verbose=0)
    inputs, labels, weights = reversals(64 * options.steps, rng)
    model.fit(inputs, labels, sample_weight=weights, batch_size=64, shuffle=False, verbose=0)
    last = model.evaluate(x, y, sample_weight=weight, verbose=0)
    print(f"loss {first:.4f} (ln {VOCABULARY} = {np.log(VOCABULARY):.4f}), after {options.steps} steps {last:.4f}")
    decoded = Greedy(model, TARGET_STEPS, START, END)({name: x[name] for name in ("source", "source_lengths")})
    sources = [row[:length].tolist() for row, length in zip(x["source"], x["source_lengths"], strict=True)]
    predictions = [row[:length].tolist() for row, length in zip(decoded.tokens, decoded.lengths, strict=True)]
    print(*(f"{source} -> {row}" for source, row in zip(sources[:3], predictions[:3], strict=True)), sep="\n")
    right = sum(row == source[::-1] for source, row in zip(sources, predictions, strict=True))
    print(f"{right} of {len(predictions)} new rows reversed without a mistake")
    return {"parameters": parameters, "trace": trace, "losses": (first, last), "decoded": decoded, "right": right}


if __name__ == "__main__":
    main()
