"""An encoder-decoder in the functional API: a shared embedding, three inputs, a probability for each token."""

import keras
from keras import layers, ops

from k3seq import arguments
from k3seq.backend import StepMixin
from k3seq.layers.lstm import LSTM


@keras.saving.register_keras_serializable(package="k3seq")
class BookDecoder(StepMixin, keras.Model):
    """A functional model from (encoder tokens (b, s), decoder tokens (b, t), sequence lengths (b,)) to probabilities (b, t, v).

    Build it with `book_decoder`; train it with Keras' "sparse_categorical_crossentropy".
    """


def book_decoder(vocabulary_size: int = 100, embed_dim: int = 10, units: int = 512) -> BookDecoder:
    """The functional model.

    Args:
        vocabulary_size: number of ids of encoder and decoder, which share one embedding.
        embed_dim: size of an embedding.
        units: size of both LSTMs.

    Returns:
        A `BookDecoder`. A decoder step beyond its row's sequence length gives the probabilities of the output bias alone.

    Raises:
        UsageError: a size is not an integer of at least 1.
    """
    arguments.positive(vocabulary_size=vocabulary_size, embed_dim=embed_dim, units=units)
    encoder_tokens = keras.Input((None,), dtype="int32", name="encoder_tokens")
    decoder_tokens = keras.Input((None,), dtype="int32", name="decoder_tokens")
    sequence_lengths = keras.Input((), dtype="int32", name="sequence_lengths")
    embed = layers.Embedding(vocabulary_size, embed_dim, name="embedding")
    _, states = LSTM(units, name="encoder")(embed(encoder_tokens))
    outputs, _ = LSTM(units, name="decoder")(embed(decoder_tokens), sequence_lengths, states)
    probabilities = ops.softmax(layers.Dense(vocabulary_size, name="output")(outputs), axis=-1)
    return BookDecoder(inputs=[encoder_tokens, decoder_tokens, sequence_lengths], outputs=probabilities, name="book_decoder")
