"""LSTM encoder-decoder models: Sutskever et al. 2014, and with Luong's global attention (2015)."""

import keras
from keras import layers, ops

from k3seq.layers.dense import Dense
from k3seq.layers.dropout import Dropout
from k3seq.layers.embedding import Embedding
from k3seq.layers.global_attention import GlobalAttention
from k3seq.layers.lstm import LSTM, BidirectionalLSTM
from k3seq.layers.masks import length_mask
from k3seq.layers.nested import Nested
from k3seq.models.seq2seq import Seq2Seq, source_of, target_of


@keras.saving.register_keras_serializable(package="k3seq")
class LSTMEncoder(Nested, layers.Layer):
    """Embedding and a stack of LSTMs.

    Call it with tokens (b, s) int32 and lengths (b,) int32 or None. Returns (outputs (b, s, units), states): a list with one
    (h, c) per layer, each (b, units).

    Args:
        vocabulary_size: number of ids. embed_dim: size of an embedding. units: size of the outputs. num_layers: LSTM layers.
        bidirectional: the first layer reads from both ends, each direction with half the units.
        dropout: rate between layers, in training.

    Raises:
        ValueError: when a size is not positive, or units is odd and the encoder bidirectional.
    """

    def __init__(self, vocabulary_size, embed_dim, units, num_layers=1, bidirectional=False, dropout=0.0, **kwargs):
        super().__init__(**kwargs)
        _check_sizes(vocabulary_size=vocabulary_size, embed_dim=embed_dim, units=units, num_layers=num_layers)
        if bidirectional and units % 2:
            raise ValueError(f"Expected an even number of units for two directions. Received: units={units}")
        self.config = dict(
            vocabulary_size=vocabulary_size,
            embed_dim=embed_dim,
            units=units,
            num_layers=num_layers,
            bidirectional=bidirectional,
            dropout=dropout,
        )
        self.embedding = Embedding(vocabulary_size, embed_dim, name="embedding", dtype=self.dtype_policy)
        first = (BidirectionalLSTM, units // 2) if bidirectional else (LSTM, units)
        kinds = [first] + [(LSTM, units)] * (num_layers - 1)
        self.lstms = [kind(size, name=f"lstm_{i}", dtype=self.dtype_policy) for i, (kind, size) in enumerate(kinds)]
        self.dropout = Dropout(dropout, name="dropout", dtype=self.dtype_policy)

    def build(self, tokens_shape):
        self.embedding.build(tokens_shape)
        size = self.config["embed_dim"]
        for lstm in self.lstms:
            lstm.build((None, None, size))
            size = self.config["units"]
        self.dropout.build((None, None, size))

    def call(self, tokens, lengths=None, training=False):
        x, states = self.embedding(tokens), []
        for i, lstm in enumerate(self.lstms):
            x, state = lstm(self.dropout(x, training=training) if i else x, lengths)
            states.append(state)
        return x, states

    def get_config(self):
        return {**super().get_config(), **self.config}


@keras.saving.register_keras_serializable(package="k3seq")
class LSTMDecoder(Nested, layers.Layer):
    """Embedding and a stack of LSTMs that begin in given states.

    Call it with tokens (b, t) int32 and states, a list with one (h, c) per layer. Returns (outputs (b, t, units), states).

    Args:
        vocabulary_size, embed_dim, units, num_layers, dropout: as in `LSTMEncoder`.

    Raises:
        ValueError: when a size is not positive.
    """

    def __init__(self, vocabulary_size, embed_dim, units, num_layers=1, dropout=0.0, **kwargs):
        super().__init__(**kwargs)
        _check_sizes(vocabulary_size=vocabulary_size, embed_dim=embed_dim, units=units, num_layers=num_layers)
        self.config = dict(
            vocabulary_size=vocabulary_size, embed_dim=embed_dim, units=units, num_layers=num_layers, dropout=dropout
        )
        self.embedding = Embedding(vocabulary_size, embed_dim, name="embedding", dtype=self.dtype_policy)
        self.lstms = [LSTM(units, name=f"lstm_{i}", dtype=self.dtype_policy) for i in range(num_layers)]
        self.dropout = Dropout(dropout, name="dropout", dtype=self.dtype_policy)

    def build(self, tokens_shape):
        self.embedding.build(tokens_shape)
        size = self.config["embed_dim"]
        for lstm in self.lstms:
            lstm.build((None, None, size))
            size = self.config["units"]
        self.dropout.build((None, None, size))

    def call(self, tokens, states, training=False):
        x, last = self.embedding(tokens), []
        for i, (lstm, state) in enumerate(zip(self.lstms, states, strict=True)):
            x, state = lstm(self.dropout(x, training=training) if i else x, None, state)
            last.append(state)
        return x, last

    def step(self, tokens, states):
        """One step without dropout: tokens (b,) int32 -> (output (b, units), states)."""
        x, last = self.embedding(tokens), []
        for lstm, state in zip(self.lstms, states, strict=True):
            x, state = lstm.step(x, state)
            last.append(state)
        return x, last

    def get_config(self):
        return {**super().get_config(), **self.config}


class RecurrentSeq2Seq(Seq2Seq):
    """What the LSTM models share: encoder, decoder, dropout, output, and their sizes.

    A subclass names whether the encoder reads from both ends, adds what stands between decoder and output in `build_between`,
    and defines `call`, `start` and `step`.
    """

    bidirectional = False

    def __init__(self, source_vocabulary_size, target_vocabulary_size, embed_dim, units, num_layers, dropout, **kwargs):
        super().__init__(**kwargs)
        self.source_vocabulary_size, self.target_vocabulary_size = source_vocabulary_size, target_vocabulary_size
        self.config = dict(
            source_vocabulary_size=source_vocabulary_size,
            target_vocabulary_size=target_vocabulary_size,
            embed_dim=embed_dim,
            units=units,
            num_layers=num_layers,
            dropout=dropout,
        )
        policy = self.dtype_policy
        self.encoder = LSTMEncoder(
            source_vocabulary_size, embed_dim, units, num_layers, self.bidirectional, dropout, name="encoder", dtype=policy
        )
        self.decoder = LSTMDecoder(target_vocabulary_size, embed_dim, units, num_layers, dropout, name="decoder", dtype=policy)
        self.encoder.build((None, None))
        self.decoder.build((None, None))
        self.build_between(units)
        self.dropout = Dropout(dropout, name="dropout", dtype=policy)
        self.dropout.build((None, None, units))
        self.logits = Dense(target_vocabulary_size, name="output", dtype=policy)
        self.logits.build((None, None, units))
        self.built = True

    def build_between(self, units):
        """Makes and builds the layers between decoder and output; none here."""

    def get_config(self):
        return {**super().get_config(), **self.config}


@keras.saving.register_keras_serializable(package="k3seq")
class LSTMSeq2Seq(RecurrentSeq2Seq):
    """Encoder and decoder LSTM; the decoder begins in the encoder's last states (Sutskever et al. 2014, arXiv 1409.3215).

    Args:
        source_vocabulary_size, target_vocabulary_size: numbers of ids. embed_dim: size of an embedding. units: size of
        the LSTMs.
        num_layers: layers of encoder and decoder. dropout: rate between layers and before the output.

    With the default sizes it has 141,380 parameters: encoder 54,440, decoder 54,440, output 32,500.
    """

    def __init__(
        self,
        source_vocabulary_size=500,
        target_vocabulary_size=500,
        embed_dim=50,
        units=64,
        num_layers=1,
        dropout=0.0,
        **kwargs,
    ):
        super().__init__(source_vocabulary_size, target_vocabulary_size, embed_dim, units, num_layers, dropout, **kwargs)

    def call(self, inputs, training=False):
        source, lengths = source_of(inputs)
        _, states = self.encoder(source, lengths, training=training)
        outputs, _ = self.decoder(target_of(inputs), states, training=training)
        return self.logits(self.dropout(outputs, training=training), training=training)

    def start(self, inputs):
        _, states = self.encoder(*source_of(inputs))
        return {"states": states}

    def step(self, tokens, state):
        output, states = self.decoder.step(tokens, state["states"])
        return self.logits(output), {"states": states}


@keras.saving.register_keras_serializable(package="k3seq")
class AttentionSeq2Seq(RecurrentSeq2Seq):
    """Two-directional LSTM encoder and LSTM decoder with global attention (Luong et al. 2015, arXiv 1508.04025).

    Args:
        source_vocabulary_size, target_vocabulary_size: numbers of ids. embed_dim: size of an embedding.
        units: size of the LSTMs, even: each direction of the encoder has half. num_layers: layers of encoder and decoder.
        dropout: rate between layers and before the output.
    """

    bidirectional = True

    def __init__(
        self, source_vocabulary_size, target_vocabulary_size, embed_dim=128, units=256, num_layers=1, dropout=0.0, **kwargs
    ):
        super().__init__(source_vocabulary_size, target_vocabulary_size, embed_dim, units, num_layers, dropout, **kwargs)

    def build_between(self, units):
        self.attention = GlobalAttention(units, name="attention", dtype=self.dtype_policy)
        self.attention.build((None, None, units), memory_shape=(None, None, units))

    def call(self, inputs, training=False):
        memory, states = self._encoded(inputs, training=training)
        outputs, _ = self.decoder(target_of(inputs), states, training=training)
        attended, _ = self.attention(outputs, **memory)
        return self.logits(self.dropout(attended, training=training), training=training)

    def _encoded(self, inputs, training=False):
        """(what attention reads, the encoder's last states)."""
        source, lengths = source_of(inputs)
        memory, states = self.encoder(source, lengths, training=training)
        steps = ops.shape(source)[1]
        lengths = ops.full(ops.shape(source)[:1], steps, "int32") if lengths is None else lengths
        return {"keys": self.attention.keys(memory), "memory": memory, "memory_mask": length_mask(lengths, steps)}, states

    def start(self, inputs):
        memory, states = self._encoded(inputs)
        return {"states": states, **memory, "alignments": ops.zeros_like(memory["memory"][:, :, 0])}

    def step(self, tokens, state):
        output, states = self.decoder.step(tokens, state["states"])
        attended, alignments = self.attention(output[:, None, :], state["keys"], state["memory"], state["memory_mask"])
        return self.logits(attended[:, 0, :]), {**state, "states": states, "alignments": alignments[:, 0, :]}


def _check_sizes(**sizes):
    for name, size in sizes.items():
        if not isinstance(size, int) or size < 1:
            raise ValueError(f"Expected {name} to be an integer of at least 1. Received: {name}={size!r}")
