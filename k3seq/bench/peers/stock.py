"""Stock Keras: the models and layers as a user would write them with `keras.layers`."""

from typing import Any

import keras
from keras import layers, ops

from k3seq.typing import Shape, Tensor


def lstm_seq2seq(
    source_vocabulary_size: int, target_vocabulary_size: int, embed_dim: int, units: int, mask: bool = False
) -> keras.Model:
    """Encoder and decoder of `keras.layers.LSTM`, the weights of `k3seq.models.lstm.LSTMSeq2Seq`, logits out.

    Args:
        source_vocabulary_size, target_vocabulary_size: numbers of ids. embed_dim, units: sizes.
        mask: id 0 of the source is padding, and the encoder gets the mask.
    """
    source = keras.Input((None,), dtype="int32", name="source")
    target = keras.Input((None,), dtype="int32", name="target")
    inputs = {"source": source, "target": target}
    if mask:
        inputs["source_lengths"] = keras.Input((), dtype="int32", name="source_lengths")  # the mask says the same
    x = layers.Embedding(source_vocabulary_size, embed_dim, mask_zero=mask, name="encoder_embedding")(source)
    _, h, c = layers.LSTM(units, return_state=True, name="encoder_lstm")(x)
    y = layers.Embedding(target_vocabulary_size, embed_dim, name="decoder_embedding")(target)
    y = layers.LSTM(units, return_sequences=True, name="decoder_lstm")(y, initial_state=[h, c])
    return keras.Model(inputs, layers.Dense(target_vocabulary_size, name="output")(y))


def token_loss() -> keras.losses.Loss:
    """Cross-entropy of logits over the tokens whose weight is not 0: the normalization of k3seq, in stock Keras."""
    return keras.losses.SparseCategoricalCrossentropy(from_logits=True, reduction="mean_with_sample_weight")


class Recurrent(layers.Layer):
    """A stock recurrent layer with the call of k3seq's layers: x (b, s, inputs) and lengths (b,) or None -> (outputs,
    state)."""

    def __init__(self, cell: str, units: int, **kwargs: Any):
        super().__init__(**kwargs)
        self.cell = cell
        self.inner = getattr(layers, cell)(units, return_sequences=True, return_state=True, name=cell.lower())

    def build(self, x_shape: Shape, lengths_shape: Shape | None = None) -> None:
        self.inner.build(x_shape)

    def call(self, x: Tensor, lengths: Tensor | None = None) -> tuple[Tensor, Any]:
        real = None
        if lengths is not None:
            real = ops.arange(ops.shape(x)[1], dtype="int32")[None, :] < lengths[:, None]
        outputs, *state = self.inner(x, mask=real)
        if real is not None:  # values at padding differ between backends and are not used
            outputs = ops.where(real[..., None], outputs, 0.0)
        return outputs, tuple(state) if len(state) > 1 else state[0]


def lstm(units: int) -> Recurrent:
    """`keras.layers.LSTM`, called as `k3seq.layers.lstm.LSTM`."""
    return Recurrent("LSTM", units)


def gru(units: int) -> Recurrent:
    """`keras.layers.GRU`, called as `k3seq.layers.gru.GRU`."""
    return Recurrent("GRU", units)
