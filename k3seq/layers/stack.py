"""Recurrent layers one upon another, with dropout between them."""

import keras

from k3seq.errors import UsageError
from k3seq.layers.dropout import Dropout
from k3seq.layers.gru import GRU, BidirectionalGRU
from k3seq.layers.lstm import LSTM, BidirectionalLSTM

KINDS = {"lstm": (LSTM, BidirectionalLSTM), "gru": (GRU, BidirectionalGRU)}


@keras.saving.register_keras_serializable(package="k3seq")
class RecurrentStack(keras.layers.Layer):
    """LSTMs or GRUs, each reading what the one below gives.

    Call it with x (b, s, inputs), `lengths` (b,) int32 or None, and `initial_state`, a list with the state of each layer, or
    None. Returns (outputs (b, s, units), states), a list with the last state of each layer; see `Recurrent`.

    Args:
        kind: "lstm" or "gru".
        units: size of the outputs of every layer, int >= 1.
        num_layers: layers, int >= 1.
        num_bidirectional: how many of the lowest layers read from both ends, each direction with half the units (Wu et
        al. 2016,
            https://arxiv.org/abs/1609.08144, has one).
        dropout: rate between layers, in training.
        fused, padding: as in `Recurrent`.

    Raises:
        UsageError: an argument is not as above, or units is odd where layers read from both ends.
    """

    def __init__(self, kind, units, num_layers=1, num_bidirectional=0, dropout=0.0, *, fused=True, padding="right", **kwargs):
        super().__init__(**kwargs)
        if kind not in KINDS:
            raise UsageError(f"Expected kind to be one of {', '.join(KINDS)}. Received: kind={kind!r}")
        if not isinstance(num_layers, int) or num_layers < 1 or not 0 <= num_bidirectional <= num_layers:
            raise UsageError(
                "Expected num_layers of at least 1 and num_bidirectional in 0..num_layers. "
                f"Received: num_layers={num_layers!r}, num_bidirectional={num_bidirectional!r}"
            )
        if num_bidirectional and units % 2:
            raise UsageError(f"Expected an even number of units for two directions. Received: units={units}")
        self.config = dict(
            kind=kind,
            units=units,
            num_layers=num_layers,
            num_bidirectional=num_bidirectional,
            dropout=dropout,
            fused=fused,
            padding=padding,
        )
        one, both = KINDS[kind]
        policy = self.dtype_policy
        self.recurrent = [
            (both if i < num_bidirectional else one)(
                units // 2 if i < num_bidirectional else units, fused=fused, padding=padding, name=f"{kind}_{i}", dtype=policy
            )
            for i in range(num_layers)
        ]
        self.dropout = Dropout(dropout, name="dropout", dtype=policy)

    def build(self, x_shape):
        size = x_shape[-1]
        for layer in self.recurrent:
            layer.build((None, None, size))
            size = self.config["units"]
        self.dropout.build((None, None, size))

    def call(self, x, lengths=None, initial_state=None, training=False):
        states = []
        for i, layer in enumerate(self.recurrent):
            x = self.dropout(x, training=training) if i else x
            x, state = layer(x, lengths) if initial_state is None else layer(x, lengths, initial_state[i])
            states.append(state)
        return x, states

    def step(self, x, states):
        """One step without dropout: x (b, inputs), a list of states -> (output (b, units), states); one direction only."""
        last = []
        for layer, state in zip(self.recurrent, states, strict=True):
            x, state = layer.step(x, state)
            last.append(state)
        return x, last

    def explain(self):
        """The path of each layer, a line each."""
        return "\n".join(f"{layer.name}: {layer.explain()}" for layer in self.recurrent)

    def get_config(self):
        return {**super().get_config(), **self.config}
