"""LSTM encoder-decoder models: Sutskever et al. 2014, and with Luong's global attention (2015)."""

from typing import Any

import keras
from keras import layers, ops

from k3seq import arguments
from k3seq.layers.dense import Dense
from k3seq.layers.dropout import Dropout
from k3seq.layers.embedding import Embedding
from k3seq.layers.global_attention import GlobalAttention
from k3seq.layers.lstm import LSTM, BidirectionalLSTM
from k3seq.layers.masks import length_mask
from k3seq.layers.nested import Nested
from k3seq.layers.recurrent import check_directions
from k3seq.models.seq2seq import Seq2Seq, source_of, target_of
from k3seq.typing import Nested as NestedTensors
from k3seq.typing import Shape, State, Tensor


class _EmbeddedLSTMs(Nested, layers.Layer):
    """An embedding and a stack of LSTMs with dropout between them: what encoder and decoder share."""

    def __init__(
        self,
        bidirectional: bool,
        vocabulary_size: int,
        embed_dim: int,
        units: int,
        num_layers: int,
        dropout: float,
        **kwargs: Any,
    ):
        super().__init__(**kwargs)
        arguments.positive(vocabulary_size=vocabulary_size, embed_dim=embed_dim, units=units, num_layers=num_layers)
        arguments.real(0, 1, dropout=dropout)
        check_directions(units, bidirectional)
        self.config: dict[str, Any] = dict(
            vocabulary_size=vocabulary_size, embed_dim=embed_dim, units=units, num_layers=num_layers, dropout=dropout
        )
        self.embedding = Embedding(vocabulary_size, embed_dim, name="embedding", dtype=self.dtype_policy)
        first = (BidirectionalLSTM, units // 2) if bidirectional else (LSTM, units)
        kinds = [first] + [(LSTM, units)] * (num_layers - 1)
        self.lstms: list[Any] = [kind(size, name=f"lstm_{i}", dtype=self.dtype_policy) for i, (kind, size) in enumerate(kinds)]
        self.dropout = Dropout(dropout, name="dropout", dtype=self.dtype_policy)

    def build(self, tokens_shape: Shape) -> None:
        self.embedding.build(tokens_shape)
        size = self.config["embed_dim"]
        for lstm in self.lstms:
            lstm.build((None, None, size))
            size = self.config["units"]
        self.dropout.build((None, None, size))

    def _through(
        self, tokens: Tensor, lengths: Tensor, states: list[NestedTensors], training: bool | None
    ) -> tuple[Tensor, list[NestedTensors]]:
        """(outputs (b, s, units), last states) of tokens (b, s); an initial state of None is zeros."""
        x, last = self.embedding(tokens), []
        for i, (lstm, state) in enumerate(zip(self.lstms, states, strict=True)):
            x = self.dropout(x, training=training) if i else x
            x, state = lstm(x, lengths) if state is None else lstm(x, lengths, state)
            last.append(state)
        return x, last

    def get_config(self) -> dict[str, Any]:
        return {**super().get_config(), **self.config}


@keras.saving.register_keras_serializable(package="k3seq")
class LSTMEncoder(_EmbeddedLSTMs):
    """Embedding and a stack of LSTMs.

    Call it with tokens (b, s) int32 and lengths (b,) int32 or None. It returns (outputs (b, s, units), states): a list with
    one (h, c) per layer, each (b, units).

    Args:
        vocabulary_size: number of ids.
        embed_dim: size of an embedding.
        units: size of the outputs.
        num_layers: LSTM layers.
        bidirectional: the first layer is bidirectional, with half the units in each direction.
        dropout: rate between layers in training, in [0, 1].

    Raises:
        UsageError: a size is not an integer of at least 1, `dropout` is not such a number, or `units` is odd where the encoder
            is bidirectional.
    """

    def __init__(
        self,
        vocabulary_size: int,
        embed_dim: int,
        units: int,
        num_layers: int = 1,
        bidirectional: bool = False,
        dropout: float = 0.0,
        **kwargs: Any,
    ):
        super().__init__(bidirectional, vocabulary_size, embed_dim, units, num_layers, dropout, **kwargs)
        self.config["bidirectional"] = bidirectional

    def call(self, tokens: Tensor, lengths: Tensor = None, training: bool | None = False) -> tuple[Tensor, list[NestedTensors]]:
        return self._through(tokens, lengths, [None] * len(self.lstms), training)


@keras.saving.register_keras_serializable(package="k3seq")
class LSTMDecoder(_EmbeddedLSTMs):
    """Embedding and a stack of LSTMs that start from given states.

    Call it with tokens (b, t) int32 and states, a list with one (h, c) per layer. It returns (outputs (b, t, units), states).

    Args:
        vocabulary_size, embed_dim, units, num_layers, dropout: as in `LSTMEncoder`.

    Raises:
        UsageError: a size is not an integer of at least 1, or `dropout` is not such a number.
    """

    def __init__(
        self, vocabulary_size: int, embed_dim: int, units: int, num_layers: int = 1, dropout: float = 0.0, **kwargs: Any
    ):
        super().__init__(False, vocabulary_size, embed_dim, units, num_layers, dropout, **kwargs)

    def call(
        self, tokens: Tensor, states: list[NestedTensors], training: bool | None = False
    ) -> tuple[Tensor, list[NestedTensors]]:
        return self._through(tokens, None, states, training)

    def step(self, tokens: Tensor, states: list[NestedTensors]) -> tuple[Tensor, list[NestedTensors]]:
        """One step without dropout: tokens (b,) int32 -> (output (b, units), states)."""
        x, last = self.embedding(tokens), []
        for lstm, state in zip(self.lstms, states, strict=True):
            x, state = lstm.step(x, state)
            last.append(state)
        return x, last


class RecurrentSeq2Seq(Seq2Seq):
    """What the LSTM models share: encoder, decoder, dropout, output, and their sizes.

    A subclass says whether the encoder is bidirectional, adds layers between decoder and output in `build_between`, and defines
    `call`, `start` and `step`.
    """

    bidirectional = False

    def __init__(
        self,
        source_vocabulary_size: int,
        target_vocabulary_size: int,
        embed_dim: int,
        units: int,
        num_layers: int,
        dropout: float,
        **kwargs: Any,
    ):
        super().__init__(**kwargs)
        arguments.positive(source_vocabulary_size=source_vocabulary_size, target_vocabulary_size=target_vocabulary_size)
        self.source_vocabulary_size, self.target_vocabulary_size = source_vocabulary_size, target_vocabulary_size
        self.config: dict[str, Any] = dict(
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

    def build_between(self, units: int) -> None:
        """Creates and builds the layers between decoder and output; none here."""

    def get_config(self) -> dict[str, Any]:
        return {**super().get_config(), **self.config}


@keras.saving.register_keras_serializable(package="k3seq")
class LSTMSeq2Seq(RecurrentSeq2Seq):
    """Encoder and decoder LSTM; the decoder starts from the encoder's last states (Sutskever et al. 2014, arXiv 1409.3215).

    With the default sizes it has 141,380 parameters: encoder 54,440, decoder 54,440, output 32,500.

    Args:
        source_vocabulary_size, target_vocabulary_size: numbers of ids.
        embed_dim: size of an embedding.
        units: size of the LSTMs.
        num_layers: layers of the encoder, and of the decoder.
        dropout: rate between layers and before the output in training, in [0, 1].

    Raises:
        UsageError: a size is not an integer of at least 1, or `dropout` is not such a number.
    """

    def __init__(
        self,
        source_vocabulary_size: int = 500,
        target_vocabulary_size: int = 500,
        embed_dim: int = 50,
        units: int = 64,
        num_layers: int = 1,
        dropout: float = 0.0,
        **kwargs: Any,
    ):
        super().__init__(source_vocabulary_size, target_vocabulary_size, embed_dim, units, num_layers, dropout, **kwargs)

    def call(self, inputs: Any, training: bool | None = False) -> Tensor:
        source, lengths = source_of(inputs)
        _, states = self.encoder(source, lengths, training=training)
        outputs, _ = self.decoder(target_of(inputs), states, training=training)
        return self.logits(self.dropout(outputs, training=training), training=training)

    def start(self, inputs: Any) -> State:
        _, states = self.encoder(*source_of(inputs))
        return {"states": states}

    def step(self, tokens: Tensor, state: State) -> tuple[Tensor, State]:
        output, states = self.decoder.step(tokens, state["states"])
        return self.logits(output), {"states": states}


@keras.saving.register_keras_serializable(package="k3seq")
class AttentionSeq2Seq(RecurrentSeq2Seq):
    """Bidirectional LSTM encoder and LSTM decoder with global attention (Luong et al. 2015, arXiv 1508.04025).

    Args:
        source_vocabulary_size, target_vocabulary_size: numbers of ids.
        embed_dim: size of an embedding.
        units: size of the LSTMs, even: each direction of the encoder has half.
        num_layers: layers of the encoder, and of the decoder.
        dropout: rate between layers and before the output in training, in [0, 1].

    Raises:
        UsageError: a size is not an integer of at least 1, `units` is odd, or `dropout` is not such a number.
    """

    bidirectional = True

    def __init__(
        self,
        source_vocabulary_size: int,
        target_vocabulary_size: int,
        embed_dim: int = 128,
        units: int = 256,
        num_layers: int = 1,
        dropout: float = 0.0,
        **kwargs: Any,
    ):
        super().__init__(source_vocabulary_size, target_vocabulary_size, embed_dim, units, num_layers, dropout, **kwargs)

    def build_between(self, units: int) -> None:
        self.attention = GlobalAttention(units, name="attention", dtype=self.dtype_policy)
        self.attention.build((None, None, units), memory_shape=(None, None, units))

    def call(self, inputs: Any, training: bool | None = False) -> Tensor:
        memory, states = self._encoded(inputs, training=training)
        outputs, _ = self.decoder(target_of(inputs), states, training=training)
        attended, _ = self.attention(outputs, **memory)
        return self.logits(self.dropout(attended, training=training), training=training)

    def _encoded(self, inputs: Any, training: bool | None = False) -> tuple[dict[str, Tensor], list[NestedTensors]]:
        """(keys, memory and mask of the attention, the encoder's last states)."""
        source, lengths = source_of(inputs)
        memory, states = self.encoder(source, lengths, training=training)
        steps = ops.shape(source)[1]
        lengths = ops.full(ops.shape(source)[:1], steps, "int32") if lengths is None else lengths
        return {"keys": self.attention.keys(memory), "memory": memory, "memory_mask": length_mask(lengths, steps)}, states

    def start(self, inputs: Any) -> State:
        memory, states = self._encoded(inputs)
        return {"states": states, **memory, "alignments": ops.zeros_like(memory["memory"][:, :, 0])}

    def step(self, tokens: Tensor, state: State) -> tuple[Tensor, State]:
        output, states = self.decoder.step(tokens, state["states"])
        attended, alignments = self.attention(output[:, None, :], state["keys"], state["memory"], state["memory_mask"])
        return self.logits(attended[:, 0, :]), {**state, "states": states, "alignments": alignments[:, 0, :]}
