"""The sliding-context model of the arithmetic problems: a window of what came before, read by attention and dense layers."""

import keras
from keras import ops

from k3seq.backend import StepMixin
from k3seq.layers.masks import length_mask
from k3seq.layers.sliding.blocks import Debed, Decode, Embed, Encode, last_positions
from k3seq.layers.sliding.frames import Frames
from k3seq.layers.sliding.ragged import pad_rows, to_dense, unpack_rows

FIELDS = ("enc", "dec", "tgt")


def dense_batch(x, width_enc, width_dec):
    """Ragged pairs as dense arrays of one width for all batches, on the host, so that a compiled step serves them all.

    Args:
        x: six arrays, (values, row_splits) of enc, dec and tgt.
        width_enc, width_dec: int, the model's windows.

    Returns:
        (x, y): x = {"enc", "enc_lengths", "dec", "dec_lengths", "tgt", "tgt_lengths"}, int32, rows padded with 0; enc rows of
        more than width_enc tokens keep their last ones, all that the window can hold. y (batch, width_dec) = the tgt tokens.

    Raises:
        ValueError: when a dec or tgt row is longer than width_dec, or enc, dec and tgt differ in rows.
    """
    enc, dec, tgt = (unpack_rows(*x[i : i + 2]) for i in (0, 2, 4))
    if not len(enc) == len(dec) == len(tgt):
        raise ValueError(f"Expected as many rows in enc, dec and tgt. Received: {len(enc)}, {len(dec)} and {len(tgt)}")
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
    order of batches matters and `reset()` starts over. Sub-layers: frames, embed, encode, decode, debed. All defaults together
    have 145,633 parameters, 145,508 of them trainable.

    Args:
        batch_size: int, rows of every batch.
        dense_dim: int, units of the dense layers over a window.
        embed_dim: int, units of a token.
        num_layers: int, blocks of the encoder and of the decoder.
        vocabulary_size: int; token 0 is the blank.
        width_dec, width_enc: int, tokens in the windows.
        faithful: True: pads take part in attention and loss, and the longest row of a batch sets the queries of all, as the
            definition has it. False: attention finds real tokens only (context, dec row), each row asks at its own tokens, and
            the loss is over real tokens.

    Call arguments:
        x: six arrays, (values, row_splits) of enc, dec and tgt, as the source gives them; or a dict of dense arrays as of
            `dense_batch`, whose shapes do not follow the data (for jit). tgt goes into the context of the next call alone.

    Returns:
        logits (batch, width_dec, vocabulary_size). What the definition returns are the first `max(dec_lengths)` positions.

    Raises:
        ValueError: when the batch is not the model's own.

    Example:
        >>> SlidingArithmetic().count_params()
        145633
    """

    loss_names = ("crossentropy",)

    def __init__(
        self,
        batch_size=5,
        dense_dim=150,
        embed_dim=6,
        num_layers=2,
        vocabulary_size=20,
        width_dec=15,
        width_enc=25,
        faithful=True,
        **kwargs,
    ):
        super().__init__(**kwargs)
        self.batch_size, self.dense_dim, self.embed_dim, self.num_layers, self.vocabulary_size = (
            batch_size,
            dense_dim,
            embed_dim,
            num_layers,
            vocabulary_size,
        )
        self.width_dec, self.width_enc, self.faithful = width_dec, width_enc, faithful
        policy = self.dtype_policy
        self.frames = Frames(width_enc, width_dec, batch_size, name="frames")
        self.embed = Embed(vocabulary_size, embed_dim, name="embed", dtype=policy)
        self.encode = Encode(width_enc, embed_dim, dense_dim, num_layers, name="encode", dtype=policy)
        self.decode = Decode(width_dec, embed_dim, dense_dim, num_layers, name="decode", dtype=policy)
        self.debed = Debed(vocabulary_size, embed_dim, name="debed", dtype=policy)
        for layer in (self.frames, self.embed, self.encode, self.decode, self.debed):
            layer.build()
        self.built = True

    def reset(self):
        """Forgets the context of all rows."""
        self.frames.reset()

    def call(self, x, training=None):
        return self._logits(self._pairs(x))[0]

    def _pairs(self, x):
        """(tokens, lengths) of enc, dec and tgt, from either form of the inputs."""
        if isinstance(x, dict):
            return [(x[name], x[f"{name}_lengths"]) for name in FIELDS]
        forms = ((self.width_enc, "last"), (self.width_dec, "first"), (self.width_enc, "last"))
        return [to_dense(*x[2 * i : 2 * i + 2], width, keep) for i, (width, keep) in enumerate(forms)]

    def _logits(self, pairs):
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

    def objective(self, x, y, sample_weight, training):
        """The mean cross entropy over the positions of the longest target (`faithful`) or over the target's tokens.

        Args:
            x: as of `call`.
            y: (batch, t) integers, targets padded with 0; t at most width_dec.
            sample_weight: (batch,) or (batch, t), multiplies the weight of each position; the mean is by weight. None: ones.
            training: bool.

        Returns:
            ({"crossentropy": scalar}, logits (batch, t, vocabulary_size))

        Raises:
            ValueError: when t is more than width_dec.
        """
        if y.shape[1] is not None and y.shape[1] > self.width_dec:
            raise ValueError(
                f"Expected targets of at most width_dec={self.width_dec} tokens. Received: y of shape {tuple(y.shape)}"
            )
        pairs = self._pairs(x)
        logits, _ = self._logits(pairs)
        steps = ops.shape(y)[1]
        logits = logits[:, :steps]
        losses = ops.sparse_categorical_crossentropy(ops.cast(y, "int32"), ops.cast(logits, "float32"), from_logits=True)
        weight = self._position_weight(pairs[2][1], sample_weight)[:, :steps]
        return {"crossentropy": ops.divide_no_nan(ops.sum(losses * weight), ops.sum(weight))}, logits

    def _position_weight(self, tgt_lengths, sample_weight):
        """(batch, steps) float32: 1 on the positions of the loss, times the sample weight."""
        if self.faithful:
            tgt_lengths = ops.full_like(tgt_lengths, ops.max(tgt_lengths))
        weight = ops.cast(length_mask(tgt_lengths, self.width_dec), "float32")
        if sample_weight is None:
            return weight
        sample_weight = ops.cast(sample_weight, "float32")
        if len(sample_weight.shape) == 1:
            return weight * sample_weight[:, None]
        return weight[:, : ops.shape(sample_weight)[1]] * sample_weight

    def batch_weight(self, x, y, sample_weight):
        """Rows where `faithful`, since the source's mean over an epoch is over samples; else tokens."""
        if self.faithful:
            return ops.convert_to_tensor(float(self.batch_size), "float32")
        return ops.sum(self._position_weight(self._pairs(x)[2][1], sample_weight))

    def get_config(self):
        names = ("batch_size", "dense_dim", "embed_dim", "num_layers", "vocabulary_size", "width_dec", "width_enc", "faithful")
        return {**super().get_config(), **{name: getattr(self, name) for name in names}}
