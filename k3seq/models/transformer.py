"""The Transformer of Vaswani et al. 2017 (arXiv 1706.03762) as a seq2seq model."""

import keras
from keras import ops

from k3seq.layers.dense import Dense
from k3seq.layers.dropout import Dropout
from k3seq.layers.embedding import TokenEmbedding
from k3seq.layers.masks import length_mask
from k3seq.layers.transformer import TransformerDecoder, TransformerEncoder
from k3seq.models.seq2seq import Seq2Seq, source_of, target_of


@keras.saving.register_keras_serializable(package="k3seq")
class TransformerSeq2Seq(Seq2Seq):
    """Encoder and decoder stacks over scaled token embeddings with sinusoidal positions.

    The call with a whole target and decoding step by step from its cache give the same logits.

    Args:
        source_vocabulary_size, target_vocabulary_size: numbers of ids.
        embed_dim: size of embeddings and blocks, a multiple of heads. dense_dim: size of the inner dense layers.
        num_heads: attention heads of `embed_dim // num_heads` each. num_layers: blocks of the encoder, and of the decoder.
        dropout: rate on embeddings and on what each part of a block adds to its residual, in training.
        max_steps: the longest source and target, and the steps that decoding has room for.

    Raises:
        ValueError: when a size is not positive, heads do not divide units, or a row is longer than max_steps.
    """

    def __init__(
        self,
        source_vocabulary_size,
        target_vocabulary_size,
        embed_dim=256,
        dense_dim=1024,
        num_heads=4,
        num_layers=2,
        dropout=0.0,
        max_steps=256,
        **kwargs,
    ):
        super().__init__(**kwargs)
        if num_heads < 1 or embed_dim % num_heads:
            raise ValueError(
                f"Expected units to be a multiple of heads. Received: embed_dim={embed_dim}, num_heads={num_heads}"
            )
        if num_layers < 1:
            raise ValueError(f"Expected depth of at least 1. Received: num_layers={num_layers}")
        self.source_vocabulary_size, self.target_vocabulary_size = source_vocabulary_size, target_vocabulary_size
        self.config = dict(
            source_vocabulary_size=source_vocabulary_size,
            target_vocabulary_size=target_vocabulary_size,
            embed_dim=embed_dim,
            dense_dim=dense_dim,
            num_heads=num_heads,
            num_layers=num_layers,
            dropout=dropout,
            max_steps=max_steps,
        )
        self.max_steps = self.source_limit = self.target_limit = max_steps
        shape = (None, None, embed_dim)
        self.source_embedding = self._embedding(source_vocabulary_size, "source_embedding")
        self.target_embedding = self._embedding(target_vocabulary_size, "target_embedding")
        self.encoders = [self._block(TransformerEncoder, f"encoder_{i}") for i in range(num_layers)]
        self.decoders = [self._block(TransformerDecoder, f"decoder_{i}") for i in range(num_layers)]
        self.dropout = Dropout(dropout, name="dropout", dtype=self.dtype_policy)
        self.logits = Dense(target_vocabulary_size, name="output", dtype=self.dtype_policy)
        for embedding in (self.source_embedding, self.target_embedding):
            embedding.build((None, None))
        for encoder in self.encoders:
            encoder.build(shape)
        for decoder in self.decoders:
            decoder.build(shape, shape)
        self.dropout.build(shape)
        self.logits.build(shape)
        self.built = True

    def _embedding(self, vocabulary, name):
        # After the scale by sqrt(units) vectors have variance 1, like what LayerNorm gives and the sinusoids are made for.
        initializer = keras.initializers.RandomNormal(stddev=self.config["embed_dim"] ** -0.5)
        return TokenEmbedding(
            vocabulary,
            self.config["embed_dim"],
            positions="sinusoidal",
            max_steps=self.max_steps,
            scale=True,
            embeddings_initializer=initializer,
            name=name,
            dtype=self.dtype_policy,
        )

    def _block(self, kind, name):
        embed_dim, num_heads = self.config["embed_dim"], self.config["num_heads"]
        sizes = dict(key_dim=embed_dim // num_heads, dropout=self.config["dropout"])
        return kind(embed_dim, self.config["dense_dim"], num_heads, **sizes, name=name, dtype=self.dtype_policy)

    def call(self, inputs, training=False):
        memory, memory_mask = self._encode(inputs, training)
        x = self.dropout(self.target_embedding(target_of(inputs)), training=training)
        for decoder in self.decoders:
            x = decoder(x, memory, memory_mask=memory_mask, training=training)
        return self.logits(x)

    def _encode(self, inputs, training):
        """(memory (b, s, embed_dim), mask (b, s) or None). Targets need no mask: pads stand last, where causality
        hides them."""
        source, lengths = source_of(inputs)
        mask = None if lengths is None else length_mask(lengths, ops.shape(source)[1])
        x = self.dropout(self.source_embedding(source), training=training)
        for encoder in self.encoders:
            x = encoder(x, mask=mask, training=training)
        return x, mask

    def start(self, inputs, steps=None):
        """The state before the first step, with room for `steps` (max_steps when None): less room is less work per step.

        Raises:
            ValueError: when steps is not within 1 and max_steps.
        """
        steps = self.max_steps if steps is None else steps
        if not 1 <= steps <= self.max_steps:
            raise ValueError(f"Expected steps within 1 and max_steps={self.max_steps}. Received: steps={steps}")
        memory, mask = self._encode(inputs, training=False)
        return {
            "position": ops.zeros(ops.shape(memory)[:1], dtype="int32"),
            "caches": [decoder.start(memory, mask, steps) for decoder in self.decoders],
        }

    def step(self, tokens, state):
        """Tokens (b,) int32 -> (logits (b, v), state). More steps than `start` made room for are the caller's to refuse."""
        position, caches = state["position"], []
        x = self.target_embedding(tokens[:, None], offset=position)[:, 0]
        for decoder, cache in zip(self.decoders, state["caches"], strict=True):
            x, cache = decoder.step(x, cache, position)
            caches.append(cache)
        return self.logits(x), {"position": position + 1, "caches": caches}

    def get_config(self):
        return {**super().get_config(), **self.config}
