"""The Transformer of Vaswani et al. 2017 (arXiv 1706.03762) as a seq2seq model."""

from typing import Any

import keras
from keras import ops

from k3seq import arguments
from k3seq.layers.dense import Dense
from k3seq.layers.dropout import Dropout
from k3seq.layers.embedding import TokenEmbedding
from k3seq.layers.masks import length_mask
from k3seq.layers.transformer import TransformerDecoder, TransformerEncoder
from k3seq.models.seq2seq import Seq2Seq, source_of, target_of
from k3seq.typing import State, Tensor


@keras.saving.register_keras_serializable(package="k3seq")
class TransformerSeq2Seq(Seq2Seq):
    """Encoder and decoder stacks over scaled token embeddings with sinusoidal positions.

    A call with a whole target and decoding step by step with a cache give the same logits.

    Args:
        source_vocabulary_size, target_vocabulary_size: numbers of ids.
        embed_dim: size of embeddings and blocks, a multiple of `num_heads`.
        dense_dim: units of the inner dense layers.
        num_heads: attention heads, of size `embed_dim // num_heads` each.
        num_layers: blocks of the encoder, and of the decoder.
        dropout: rate in training on embeddings and on the output of each part of a block, in [0, 1].
        max_steps: largest number of source tokens, of target tokens, and of decoding steps.

    Raises:
        UsageError: a size is not an integer of at least 1, `num_heads` does not divide `embed_dim`, `dropout` is not such a
            number, or a row is longer than `max_steps`.
    """

    def __init__(
        self,
        source_vocabulary_size: int,
        target_vocabulary_size: int,
        embed_dim: int = 256,
        dense_dim: int = 1024,
        num_heads: int = 4,
        num_layers: int = 2,
        dropout: float = 0.0,
        max_steps: int = 256,
        **kwargs: Any,
    ):
        super().__init__(**kwargs)
        sizes = dict(
            source_vocabulary_size=source_vocabulary_size,
            target_vocabulary_size=target_vocabulary_size,
            embed_dim=embed_dim,
            dense_dim=dense_dim,
            num_heads=num_heads,
            num_layers=num_layers,
            max_steps=max_steps,
        )
        arguments.positive(**sizes)
        arguments.divisible("num_heads", embed_dim=embed_dim, num_heads=num_heads)
        arguments.real(0, 1, dropout=dropout)
        self.source_vocabulary_size, self.target_vocabulary_size = source_vocabulary_size, target_vocabulary_size
        self.config: dict[str, Any] = {**sizes, "dropout": dropout}
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

    def _embedding(self, vocabulary_size: int, name: str) -> TokenEmbedding:
        # After the scale by sqrt(embed_dim) the vectors have variance 1, like the outputs of LayerNorm.
        initializer = keras.initializers.RandomNormal(stddev=self.config["embed_dim"] ** -0.5)
        return TokenEmbedding(
            vocabulary_size,
            self.config["embed_dim"],
            positions="sinusoidal",
            max_steps=self.max_steps,
            scale=True,
            embeddings_initializer=initializer,
            name=name,
            dtype=self.dtype_policy,
        )

    def _block(self, kind: Any, name: str) -> Any:
        embed_dim, num_heads = self.config["embed_dim"], self.config["num_heads"]
        sizes = dict(key_dim=embed_dim // num_heads, dropout=self.config["dropout"])
        return kind(embed_dim, self.config["dense_dim"], num_heads, **sizes, name=name, dtype=self.dtype_policy)

    def call(self, inputs: Any, training: bool | None = False) -> Tensor:
        memory, memory_mask = self._encode(inputs, training)
        x = self.dropout(self.target_embedding(target_of(inputs)), training=training)
        for decoder in self.decoders:
            x = decoder(x, memory, memory_mask=memory_mask, training=training)
        return self.logits(x)

    def _encode(self, inputs: Any, training: bool | None) -> tuple[Tensor, Tensor]:
        """(memory (b, s, embed_dim), mask (b, s) or None). Targets need no mask: pads come last, and attention is causal."""
        source, lengths = source_of(inputs)
        mask = None if lengths is None else length_mask(lengths, ops.shape(source)[1])
        x = self.dropout(self.source_embedding(source), training=training)
        for encoder in self.encoders:
            x = encoder(x, mask=mask, training=training)
        return x, mask

    def start(self, inputs: Any, steps: int | None = None) -> State:
        """The state before the first step.

        Args:
            inputs: see `Seq2Seq.start`.
            steps: largest number of steps, None for `max_steps`: each step costs less where it is smaller.

        Raises:
            UsageError: `steps` is not an integer in 1..max_steps.
        """
        steps = self.max_steps if steps is None else steps
        arguments.integer(1, self.max_steps, steps=steps)
        memory, mask = self._encode(inputs, training=False)
        return {
            "position": ops.zeros(ops.shape(memory)[:1], dtype="int32"),
            "caches": [decoder.start(memory, mask, steps) for decoder in self.decoders],
        }

    def step(self, tokens: Tensor, state: State) -> tuple[Tensor, State]:
        """Tokens (b,) int32 -> (logits (b, v), state). The caller must not take more steps than `start` was given."""
        position, caches = state["position"], []
        x = self.target_embedding(tokens[:, None], offset=position)[:, 0]
        for decoder, cache in zip(self.decoders, state["caches"], strict=True):
            x, cache = decoder.step(x, cache, position)
            caches.append(cache)
        return self.logits(x), {"position": position + 1, "caches": caches}

    def get_config(self) -> dict[str, Any]:
        return {**super().get_config(), **self.config}
