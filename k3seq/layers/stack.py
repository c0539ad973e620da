"""A stack of recurrent layers with dropout between them."""

from typing import Any

import keras

from k3seq import arguments
from k3seq.layers.dropout import Dropout
from k3seq.layers.gru import GRU, BidirectionalGRU
from k3seq.layers.lstm import LSTM, BidirectionalLSTM
from k3seq.layers.recurrent import check_directions
from k3seq.typing import Nested, Shape, Tensor

KINDS = {"lstm": (LSTM, BidirectionalLSTM), "gru": (GRU, BidirectionalGRU)}


@keras.saving.register_keras_serializable(package="k3seq")
class RecurrentStack(keras.layers.Layer):
    """LSTMs or GRUs, each of which reads the outputs of the one below.

    Call it with x (b, s, inputs), `lengths` (b,) int32 or None, and `initial_state`, a list with the state of each layer, or
    None. It returns (outputs (b, s, units), states), a list with the last state of each layer; see `Recurrent`.

    Args:
        kind: "lstm" or "gru".
        units: size of the outputs of every layer, an integer of at least 1.
        num_layers: layers, an integer of at least 1.
        num_bidirectional: number of the lowest layers that are bidirectional, with half the units in each direction (Wu et al.
            2016, https://arxiv.org/abs/1609.08144, has one).
        dropout: rate between layers in training, in [0, 1].
        fused, padding: as in `Recurrent`.

    Raises:
        UsageError: an argument is not as above, or `units` is odd where layers are bidirectional.
    """

    def __init__(
        self,
        kind: str,
        units: int,
        num_layers: int = 1,
        num_bidirectional: int = 0,
        dropout: float = 0.0,
        *,
        fused: bool = True,
        padding: str = "right",
        **kwargs: Any,
    ):
        super().__init__(**kwargs)
        arguments.one_of(KINDS, kind=kind)
        arguments.positive(units=units, num_layers=num_layers)
        arguments.integer(0, num_layers, num_bidirectional=num_bidirectional)
        arguments.real(0, 1, dropout=dropout)
        check_directions(units, num_bidirectional > 0)
        self.config: dict[str, Any] = dict(
            kind=kind,
            units=units,
            num_layers=num_layers,
            num_bidirectional=num_bidirectional,
            dropout=dropout,
            fused=fused,
            padding=padding,
        )
        unidirectional, bidirectional = KINDS[kind]
        policy = self.dtype_policy
        kinds = [(bidirectional, units // 2)] * num_bidirectional + [(unidirectional, units)] * (num_layers - num_bidirectional)
        self.recurrent = [
            layer(size, fused=fused, padding=padding, name=f"{kind}_{i}", dtype=policy) for i, (layer, size) in enumerate(kinds)
        ]
        self.dropout = Dropout(dropout, name="dropout", dtype=policy)

    def build(self, x_shape: Shape) -> None:
        size = x_shape[-1]
        for layer in self.recurrent:
            layer.build((None, None, size))
            size = self.config["units"]
        self.dropout.build((None, None, size))

    def call(
        self, x: Tensor, lengths: Tensor = None, initial_state: list[Nested] | None = None, training: bool | None = False
    ) -> tuple[Tensor, list[Nested]]:
        states = []
        for i, layer in enumerate(self.recurrent):
            x = self.dropout(x, training=training) if i else x
            x, state = layer(x, lengths) if initial_state is None else layer(x, lengths, initial_state[i])
            states.append(state)
        return x, states

    def step(self, x: Tensor, states: list[Nested]) -> tuple[Tensor, list[Nested]]:
        """One step without dropout: x (b, inputs), a list of states -> (output (b, units), states). Unidirectional only."""
        last = []
        for layer, state in zip(self.recurrent, states, strict=True):
            x, state = layer.step(x, state)
            last.append(state)
        return x, last

    def explain(self) -> str:
        """The implementation of each layer, one line each."""
        return "\n".join(f"{layer.name}: {layer.explain()}" for layer in self.recurrent)

    def get_config(self) -> dict[str, Any]:
        return {**super().get_config(), **self.config}
