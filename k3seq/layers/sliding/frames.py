"""The sliding context: earlier tokens, followed by those of the current batch, in a window of fixed width.

After "Transformer-XL" (arXiv 1901.02860), kept as tokens instead of activations.
"""

from typing import Any

import keras
from keras import ops

from k3seq import arguments
from k3seq.errors import UsageError
from k3seq.layers.masks import length_mask
from k3seq.typing import Shape, Tensor


def slide(context: Tensor, tokens: Tensor, lengths: Tensor) -> Tensor:
    """The last tokens of `context` followed by a row.

    Args:
        context: (batch, width) integers.
        tokens: (batch, n) integers, padded at the right. Of a row longer than n its last n tokens; n is then at least width.
        lengths: (batch,) int32, lengths of the whole rows.

    Returns:
        (batch, width): for each row the last `width` of all its tokens.
    """
    width = context.shape[1]
    held = ops.minimum(lengths, ops.shape(tokens)[1])
    index = held[:, None] + ops.arange(width, dtype="int32")[None, :]
    return ops.take_along_axis(ops.concatenate([context, tokens], axis=1), index, axis=1)


def widen(tokens: Tensor, lengths: Tensor, width: int) -> Tensor:
    """Tokens in `width` columns, padded with 0 at the right. Of a row longer than `width` the first tokens are kept."""
    blanks = ops.zeros_like(lengths)[:, None] * ops.ones((1, width), "int32")
    tokens = ops.concatenate([tokens, blanks], axis=1)[:, :width]
    return ops.where(length_mask(lengths, width), tokens, 0)


@keras.saving.register_keras_serializable(package="k3seq")
class Frames(keras.layers.Layer):
    """Appends each encoder row to its row of context, and adds encoder and target rows to the context of the next call.

    The context `prev` (batch, width_enc) is a variable, not trainable, zeros at first. It persists over batches, epochs,
    `fit`, `evaluate` and `predict` until `reset()`, and is saved with the layer.
    Row i of a call continues row i of the call before.

    Args:
        width_enc: tokens of the context and of the encoder's window, an integer of at least 1.
        width_dec: tokens of the decoder's window, an integer of at least 1.
        batch_size: rows of every call, an integer of at least 1.

    Call arguments:
        enc, dec, tgt: pairs (tokens, lengths) of shapes (batch, n) and (batch,), integers, padded at the right; n may differ
            between the three. A row may be empty. Of an enc or tgt row longer than n the tokens are its last ones, and n is at
            least width_enc (`to_dense(..., keep="last")`). Of a dec row longer than width_dec the first width_dec tokens are
            kept (the source refuses such a row, as `models.sliding_arithmetic.dense_batch` does on the host).

    Returns:
        (enc, enc_lengths, dec, dec_lengths), int32, of shapes (batch, width_enc), (batch,), (batch, width_dec), (batch,). The
        lengths are those of the given rows, also where they exceed a window.

    Raises:
        UsageError: a size is not such an integer, or a batch does not have `batch_size` rows, such as a short last batch. Rows
            are never mixed: where TensorFlow traces with an unknown batch size, its own error names both sizes when the step
            runs.
    """

    def __init__(self, width_enc: int, width_dec: int, batch_size: int, **kwargs: Any):
        super().__init__(**kwargs)
        arguments.positive(width_enc=width_enc, width_dec=width_dec, batch_size=batch_size)
        self.width_enc, self.width_dec, self.batch_size = width_enc, width_dec, batch_size

    def build(self, input_shape: Shape | None = None) -> None:
        self.prev = self.add_weight(
            name="prev", shape=(self.batch_size, self.width_enc), dtype="int32", initializer="zeros", trainable=False
        )

    def reset(self) -> None:
        """Clears the context: `prev` becomes zeros."""
        self.prev.assign(ops.zeros((self.batch_size, self.width_enc), "int32"))

    def call(
        self, enc: tuple[Tensor, Tensor], dec: tuple[Tensor, Tensor], tgt: tuple[Tensor, Tensor]
    ) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        self._check_batch(enc=enc, dec=dec, tgt=tgt)
        enc, enc_lengths, dec, dec_lengths, tgt, tgt_lengths = (ops.cast(part, "int32") for part in (*enc, *dec, *tgt))
        window = slide(ops.convert_to_tensor(self.prev), enc, enc_lengths)
        self.prev.assign(slide(window, tgt, tgt_lengths))
        return window, enc_lengths, widen(dec, dec_lengths, self.width_dec), dec_lengths

    def compute_output_spec(
        self, enc: tuple[Tensor, Tensor], dec: tuple[Tensor, Tensor], tgt: tuple[Tensor, Tensor]
    ) -> tuple[Tensor, ...]:
        self._check_batch(enc=enc, dec=dec, tgt=tgt)
        shapes = ((self.batch_size, self.width_enc), (self.batch_size,), (self.batch_size, self.width_dec), (self.batch_size,))
        return tuple(keras.KerasTensor(shape, "int32") for shape in shapes)

    def _check_batch(self, **pairs: tuple[Tensor, Tensor]) -> None:
        for name, pair in pairs.items():
            for received in (part.shape[0] for part in pair):
                if received is not None and received != self.batch_size:
                    raise UsageError(f"Expected {name} of batch_size={self.batch_size} rows. Received: {received} rows")

    def get_config(self) -> dict[str, Any]:
        sizes = {"width_enc": self.width_enc, "width_dec": self.width_dec, "batch_size": self.batch_size}
        return {**super().get_config(), **sizes}
