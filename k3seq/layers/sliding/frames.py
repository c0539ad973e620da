"""The sliding context: what came before, followed by what comes now, in a window of fixed width.

After "Transformer-XL" (arXiv 1901.02860), kept as tokens instead of activations.
"""

import keras
from keras import ops

from k3seq.layers.masks import length_mask


def slide(context, tokens, lengths):
    """The last tokens of `context` followed by a row.

    Args:
        context: (batch, width) integers.
        tokens: (batch, n) integers, rows at the left. Of a row longer than n the last n tokens; n is then at least width.
        lengths: (batch,) int32, lengths of the whole rows.

    Returns:
        (batch, width): for each row the last `width` of all its tokens.
    """
    width = context.shape[1]
    held = ops.minimum(lengths, ops.shape(tokens)[1])
    index = held[:, None] + ops.arange(width, dtype="int32")[None, :]
    return ops.take_along_axis(ops.concatenate([context, tokens], axis=1), index, axis=1)


def widen(tokens, lengths, width):
    """Tokens in `width` columns, 0 behind each row; of a row longer than `width` the first tokens stay."""
    blanks = ops.zeros_like(lengths)[:, None] * ops.ones((1, width), "int32")
    tokens = ops.concatenate([tokens, blanks], axis=1)[:, :width]
    return ops.where(length_mask(lengths, width), tokens, 0)


@keras.saving.register_keras_serializable(package="k3seq")
class Frames(keras.layers.Layer):
    """Puts every encoder row behind its row of context, and takes encoder and target rows into the context of the next call.

    The context `prev` (batch, width_enc) is a variable, not trainable, zeros at first. It carries over batches, epochs, `fit`,
    `evaluate` and `predict` until `reset()`, and is saved with the layer. Row i of a call continues row i of the call before.

    Args:
        width_enc: int, tokens of the context and of the encoder's window.
        width_dec: int, tokens of the decoder's window.
        batch_size: int, rows of every call.

    Call arguments:
        enc, dec, tgt: pairs (tokens, lengths) of shapes (batch, n) and (batch,), integers, rows at the left; n may differ
            between the three. A row may be empty. Of an enc or tgt row longer than n the tokens are its last ones and n is at
            least width_enc (`to_dense(..., keep="last")`). Of a dec row longer than width_dec the first width_dec tokens stay
            (the source refuses it; so does `models.sliding.dense_batch`, on the host).

    Returns:
        (enc, enc_lengths, dec, dec_lengths), int32, of shapes (batch, width_enc), (batch,), (batch, width_dec), (batch,). The
        lengths are those of the rows that came, also where they exceed a window.

    Raises:
        ValueError: when the batch differs from the layer's own, a last short batch for instance. Rows are never mixed: where
            TensorFlow traces with an unknown batch, its own error names the two sizes when the step runs.
    """

    def __init__(self, width_enc, width_dec, batch_size, **kwargs):
        super().__init__(**kwargs)
        for name, value in (("width_enc", width_enc), ("width_dec", width_dec), ("batch_size", batch_size)):
            if value < 1:
                raise ValueError(f"Expected {name} of at least 1. Received: {name}={value}")
        self.width_enc, self.width_dec, self.batch_size = width_enc, width_dec, batch_size

    def build(self, input_shape=None):
        self.prev = self.add_weight(
            name="prev", shape=(self.batch_size, self.width_enc), dtype="int32", initializer="zeros", trainable=False
        )

    def reset(self):
        """Forgets the context: `prev` is zeros again."""
        self.prev.assign(ops.zeros((self.batch_size, self.width_enc), "int32"))

    def call(self, enc, dec, tgt):
        self._check_batch(enc=enc, dec=dec, tgt=tgt)
        enc, enc_lengths, dec, dec_lengths, tgt, tgt_lengths = (ops.cast(part, "int32") for part in (*enc, *dec, *tgt))
        window = slide(ops.convert_to_tensor(self.prev), enc, enc_lengths)
        self.prev.assign(slide(window, tgt, tgt_lengths))
        return window, enc_lengths, widen(dec, dec_lengths, self.width_dec), dec_lengths

    def compute_output_spec(self, enc, dec, tgt):
        self._check_batch(enc=enc, dec=dec, tgt=tgt)
        shapes = ((self.batch_size, self.width_enc), (self.batch_size,), (self.batch_size, self.width_dec), (self.batch_size,))
        return tuple(keras.KerasTensor(shape, "int32") for shape in shapes)

    def _check_batch(self, **pairs):
        for name, pair in pairs.items():
            for received in (part.shape[0] for part in pair):
                if received is not None and received != self.batch_size:
                    raise ValueError(
                        f"Expected {name} of {self.batch_size} rows (batch_size), as the context has. Received: {received}"
                    )

    def get_config(self):
        sizes = {"width_enc": self.width_enc, "width_dec": self.width_dec, "batch_size": self.batch_size}
        return {**super().get_config(), **sizes}
