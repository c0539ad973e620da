"""The sliding-context model of the arithmetic problems: attention and dense layers over a window of earlier tokens."""

from collections.abc import Sequence
from typing import Any

import keras
from keras import ops

from k3seq import arguments
from k3seq.backend import StepMixin
from k3seq.errors import UsageError
from k3seq.layers.masks import length_mask
from k3seq.layers.sliding.blocks import Debed, Decode, Embed, Encode, last_positions
from k3seq.layers.sliding.frames import Frames
from k3seq.layers.sliding.ragged import pad_rows, to_dense, unpack_rows
from k3seq.train.targets import align, check_weights
from k3seq.typing import ArrayLike, NDArray, Tensor

FIELDS = ("enc", "dec", "tgt")


def dense_batch(x: Sequence[ArrayLike], width_enc: int, width_dec: int) -> tuple[dict[str, NDArray[Any]], NDArray[Any]]:
    """Ragged pairs as dense arrays of one width for all batches, on the host, so that a step is compiled only once.

    Args:
        x: six arrays, (values, row_splits) of enc, dec and tgt.
        width_enc, width_dec: tokens of the model's windows.

    Returns:
        (x, y): x = {"enc", "enc_lengths", "dec", "dec_lengths", "tgt", "tgt_lengths"}, int32, rows padded with 0; enc rows of
        more than width_enc tokens keep their last ones, as many as the window holds. y (batch, width_dec) = the tgt tokens.

    Raises:
        UsageError: a dec or tgt row is longer than width_dec, or enc, dec and tgt differ in rows.
    """
    enc, dec, tgt = (unpack_rows(x[i], x[i + 1]) for i in (0, 2, 4))
    if not len(enc) == len(dec) == len(tgt):
        raise UsageError(f"Expected as many rows in enc, dec and tgt. Received: {len(enc)}, {len(dec)} and {len(tgt)} rows")
    tokens = {
        "enc": pad_rows([row[-width_enc:] for row in enc], width_enc, "enc row"),
        "dec": pad_rows(dec, width_dec, "dec row"),
        "tgt": pad_rows(tgt, width_dec, "tgt row"),
    }
    batch = {name: rows for name, (rows, _) in tokens.items()}
    lengths = {f"{name}_lengths": lengths for name, (_, lengths) in tokens.items()}
    return {**batch, **lengths}, batch["tgt"]


@keras.saving.register_keras_serializable(package="k3seq")
class SlidingArithmetic(StepMixin, keras.Model):
    """Encoder and decoder over sliding windows, after "Transformer-XL" (arXiv 1901.02860) with tokens as context.

    Each row of the batch is a stream: its window holds the problems and results of the calls before (`frames.prev`), so the
    order of batches matters and `reset()` starts over. Sub-layers: frames, embed, encode, decode, debed. With the defaults it
    has 145,633 parameters, 145,508 of them trainable.

    Args:
        batch_size: rows of every batch.
        dense_dim: units of the dense layers over a window.
        embed_dim: size of a token vector.
        num_layers: blocks of the encoder, and of the decoder.
        vocabulary_size: number of ids; token 0 is the blank.
        width_dec, width_enc: tokens in the windows.
        faithful: True: as in the definition, pads take part in attention and loss, and the longest row of a batch determines
            the queries of all rows. False: attention sees real tokens only (context, dec row), the queries of a row are its
            own tokens, and the loss is over real tokens.

    Call arguments:
        x: six arrays, (values, row_splits) of enc, dec and tgt, as in the source; or a dict of dense arrays from
            `dense_batch`, whose shapes do not depend on the data (for jit). tgt only enters the context of the next call.

    Returns:
        logits (batch, width_dec, vocabulary_size). The definition returns the first `max(dec_lengths)` positions.

    Raises:
        UsageError: a size is not an integer of at least 1, or a batch does not have `batch_size` rows.

    Example:
        >>> SlidingArithmetic().count_params()
        145633
    """

    loss_names = ("crossentropy",)

    def __init__(
        self,
        batch_size: int = 5,
        dense_dim: int = 150,
        embed_dim: int = 6,
        num_layers: int = 2,
        vocabulary_size: int = 20,
        width_dec: int = 15,
        width_enc: int = 25,
        faithful: bool = True,
        **kwargs: Any,
    ):
        super().__init__(**kwargs)
        sizes = dict(
            batch_size=batch_size,
            dense_dim=dense_dim,
            embed_dim=embed_dim,
            num_layers=num_layers,
            vocabulary_size=vocabulary_size,
            width_dec=width_dec,
            width_enc=width_enc,
        )
        arguments.positive(**sizes)
        self.config = {**sizes, "faithful": faithful}
        self.batch_size, self.width_dec, self.width_enc, self.faithful = batch_size, width_dec, width_enc, faithful
        policy = self.dtype_policy
        self.frames = Frames(width_enc, width_dec, batch_size, name="frames")
        self.embed = Embed(vocabulary_size, embed_dim, name="embed", dtype=policy)
        self.encode = Encode(width_enc, embed_dim, dense_dim, num_layers, name="encode", dtype=policy)
        self.decode = Decode(width_dec, embed_dim, dense_dim, num_layers, name="decode", dtype=policy)
        self.debed = Debed(vocabulary_size, embed_dim, name="debed", dtype=policy)
        for layer in (self.frames, self.embed, self.encode, self.decode, self.debed):
            layer.build()
        self.built = True

    def reset(self) -> None:
        """Clears the context of all rows."""
        self.frames.reset()

    def call(self, x: Any, training: bool | None = None) -> Tensor:
        return self._logits(self._pairs(x))[0]

    def _pairs(self, x: Any) -> list[tuple[Tensor, Tensor]]:
        """(tokens, lengths) of enc, dec and tgt, from both forms of the inputs."""
        if isinstance(x, dict):
            return [(x[name], x[f"{name}_lengths"]) for name in FIELDS]
        forms = ((self.width_enc, "last"), (self.width_dec, "first"), (self.width_enc, "last"))
        return [to_dense(x[2 * i], x[2 * i + 1], width, keep) for i, (width, keep) in enumerate(forms)]

    def _logits(self, pairs: list[tuple[Tensor, Tensor]]) -> tuple[Tensor, Tensor]:
        enc, enc_lengths, dec, dec_lengths = self.frames(*pairs)
        enc_mask = dec_mask = None
        if self.faithful:
            enc_queries = last_positions(enc_lengths, self.width_enc)
            dec_queries = last_positions(dec_lengths, self.width_dec)
        else:
            enc_mask = enc != 0
            enc_queries = ops.arange(self.width_enc, dtype="int32")[None, :] >= self.width_enc - enc_lengths[:, None]
            dec_queries = dec_mask = length_mask(dec_lengths, self.width_dec)
        encoded = self.encode(self.embed(enc), enc_queries, x_mask=enc_mask)
        decoded = self.decode(self.embed(dec), encoded, dec_queries, x_mask=dec_mask, context_mask=enc_mask)
        return self.debed(decoded, dec_lengths)

    def objective(self, x: Any, y: Tensor, sample_weight: Tensor, training: bool) -> tuple[dict[str, Tensor], Tensor]:
        """The mean cross-entropy over the positions of the longest target (`faithful`) or over the target's tokens.

        Args:
            x: as of `call`.
            y: (batch, t) or (batch, t, 1) integers, targets padded with 0; t at most width_dec.
            sample_weight: (batch,), (batch, 1) or (batch, t), multiplied with the weight of each position. None: ones.
            training: bool.

        Returns:
            ({"crossentropy": scalar}, logits (batch, t, vocabulary_size))

        Raises:
            UsageError: y or sample_weight has another shape, or t is more than width_dec.
        """
        y, sample_weight = self._aligned(y, sample_weight)
        if y.shape[1] is not None and y.shape[1] > self.width_dec:
            raise UsageError(
                f"Expected targets of at most width_dec={self.width_dec} tokens. Received: y of shape {tuple(y.shape)}"
            )
        pairs = self._pairs(x)
        logits, _ = self._logits(pairs)
        steps = ops.shape(y)[1]
        logits = logits[:, :steps]
        losses = ops.sparse_categorical_crossentropy(ops.cast(y, "int32"), ops.cast(logits, "float32"), from_logits=True)
        weight = self._position_weight(pairs[2][1], sample_weight)[:, :steps]
        return {"crossentropy": ops.divide_no_nan(ops.sum(losses * weight), ops.sum(weight))}, logits

    def _aligned(self, y: Tensor, sample_weight: Tensor) -> tuple[Tensor, Tensor]:
        check_weights(sample_weight)
        steps = None if y is None or len(y.shape) < 2 else y.shape[1]
        return align(y, sample_weight, (self.batch_size, steps))

    def _position_weight(self, tgt_lengths: Tensor, sample_weight: Tensor) -> Tensor:
        """(batch, steps) float32: 1 on the positions of the loss, times the sample weight."""
        if self.faithful:
            tgt_lengths = ops.full_like(tgt_lengths, ops.max(tgt_lengths))
        weight = ops.cast(length_mask(tgt_lengths, self.width_dec), "float32")
        if sample_weight is None:
            return weight
        return weight[:, : ops.shape(sample_weight)[1]] * ops.cast(sample_weight, "float32")

    def batch_weight(self, x: Any, y: Tensor, sample_weight: Tensor) -> Tensor:
        """Rows where `faithful`, since the mean over an epoch is over samples in the source; else tokens."""
        if self.faithful:
            return ops.convert_to_tensor(float(self.batch_size), "float32")
        _, sample_weight = self._aligned(y, sample_weight)
        return ops.sum(self._position_weight(self._pairs(x)[2][1], sample_weight))

    def get_config(self) -> dict[str, Any]:
        return {**super().get_config(), **self.config}
