"""A functional model with a decoder object, and which of its layers and weights are trained.

Run it as `KERAS_BACKEND=jax python examples/book_decoder.py --steps 100`, with any backend.

`keras.Model` gets inputs and outputs only, and finds the layers between them: a tensor of the functional API refers to the call
that made it, and the call to its arguments. `provenance_of` follows them back to the inputs, and computes gradients.
"""

import argparse

import keras
import numpy as np

import k3seq as tfa
from k3seq.inspect import draw_provenance, provenance_of, save_figure


def book(vocab_size=100, embed_size=10, units=512):
    """The source's lines, with Keras 3's names."""
    encoder_inputs = keras.layers.Input(shape=[None], dtype=np.int32)
    decoder_inputs = keras.layers.Input(shape=[None], dtype=np.int32)
    sequence_lengths = keras.layers.Input(shape=[], dtype=np.int32)

    embeddings = keras.layers.Embedding(vocab_size, embed_size)
    encoder_embeddings = embeddings(encoder_inputs)
    decoder_embeddings = embeddings(decoder_inputs)

    encoder = keras.layers.LSTM(units, return_state=True)
    _, state_h, state_c = encoder(encoder_embeddings)
    encoder_state = [state_h, state_c]

    sampler = tfa.seq2seq.sampler.TrainingSampler()

    decoder_cell = keras.layers.LSTMCell(units)
    output_layer = keras.layers.Dense(vocab_size)
    decoder = tfa.seq2seq.basic_decoder.BasicDecoder(decoder_cell, sampler, output_layer=output_layer)
    final_outputs, final_state, _ = decoder(decoder_embeddings, initial_state=encoder_state, sequence_length=sequence_lengths)
    Y_proba = keras.ops.softmax(final_outputs.rnn_output)

    return keras.models.Model(inputs=[encoder_inputs, decoder_inputs, sequence_lengths], outputs=[Y_proba])


def counting(rows, vocab_size, rng):
    """Data with the source's shapes that can be learned: each target counts up from the first token of its source."""
    X = rng.integers(vocab_size, size=(rows, 10))
    Y = (X[:, :1] + np.arange(15)) % vocab_size
    X_decoder = np.c_[np.zeros((rows, 1), int), Y[:, :-1]]
    return [X.astype("int32"), X_decoder.astype("int32"), np.full([rows], 15, "int32")], Y.astype("int32")


def main(arguments=None):
    """Trains; returns {"model", "losses": before and after training, "provenance"}."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--steps", type=int, default=100, help="training steps, of 32 rows")
    parser.add_argument("--vocabulary-size", type=int, default=100, help="number of ids")
    parser.add_argument("--units", type=int, default=512, help="size of both LSTMs")
    parser.add_argument("--picture", help="PNG file for a picture of the layers and weights that produce the output")
    options, rng = parser.parse_args(arguments), np.random.default_rng(0)

    model = tfa.random.initialize(book(options.vocabulary_size, units=options.units), seed=0)
    provenance = provenance_of(model.output)
    print(provenance)
    if options.picture:
        save_figure(draw_provenance(provenance), options.picture)

    model.compile(loss="sparse_categorical_crossentropy", optimizer="adam")
    fresh = counting(64, options.vocabulary_size, rng)
    before = model.evaluate(*fresh, batch_size=32, verbose=0)
    model.fit(*counting(32 * options.steps, options.vocabulary_size, rng), batch_size=32, verbose=0)
    after = model.evaluate(*fresh, batch_size=32, verbose=0)
    print(f"loss {before:.4f} (ln {options.vocabulary_size} = {np.log(options.vocabulary_size):.4f}) -> {after:.4f}")
    return {"model": model, "losses": (before, after), "provenance": provenance}


if __name__ == "__main__":
    main()
