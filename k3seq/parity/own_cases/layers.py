"""The cases of `k3seq.layers`."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from k3seq.parity.case import Case
from k3seq.parity.own_cases.sizes import EMPTY, LENGTHS, MASK, STATE, STEPS, TARGET, TOKENS, B, D, S, T, V, X
from k3seq.typing import Json, Nested


def layer(
    name: str,
    factory: str,
    arguments: Mapping[str, Json] | None = None,
    inputs: Nested = X,
    call: Mapping[str, Nested] | None = None,
    optional: Sequence[str] = (),
    **options: Any,
) -> Case:
    """A case of `k3seq.layers`; the layer has a fixed name, as in a model."""
    arguments = {**(arguments or {}), "name": name.lower().replace("-", "_")}
    return Case(name, f"k3seq.layers.{factory}", arguments, inputs, dict(call or {}), optional, **options)


LAYERS = [
    layer("LSTM", "lstm:LSTM", {"units": D}, call={"lengths": LENGTHS}, optional=["lengths"]),
    layer(
        "LSTM-states",
        "lstm:LSTM",
        {"units": D},
        call={"lengths": EMPTY, "initial_state": [STATE, STATE]},
    ),
    layer("LSTM-left", "lstm:LSTM", {"units": D, "padding": "left"}, call={"lengths": EMPTY}),
    layer("LSTM-unfused", "lstm:LSTM", {"units": D, "fused": False}, call={"lengths": LENGTHS}),
    layer("BidirectionalLSTM", "lstm:BidirectionalLSTM", {"units": D // 2}, call={"lengths": LENGTHS}, optional=["lengths"]),
    layer("GRU", "gru:GRU", {"units": D}, call={"lengths": LENGTHS}, optional=["lengths"]),
    layer("GRU-state", "gru:GRU", {"units": D, "padding": "left"}, call={"lengths": EMPTY, "initial_state": STATE}),
    layer("BidirectionalGRU", "gru:BidirectionalGRU", {"units": D // 2, "padding": "left"}, call={"lengths": LENGTHS}),
    layer(
        "RecurrentStack",
        "stack:RecurrentStack",
        {"kind": "lstm", "units": D, "num_layers": 2, "num_bidirectional": 1, "dropout": 0.1},
        call={"lengths": LENGTHS},
    ),
    layer(
        "RecurrentStack-GRU",
        "stack:RecurrentStack",
        {"kind": "gru", "units": D, "num_layers": 2, "padding": "left"},
        call={"lengths": LENGTHS, "initial_state": [STATE, STATE]},
    ),
    layer("Projection", "dense:Projection", {"units": D}),
    layer(
        "GlobalAttention",
        "global_attention:GlobalAttention",
        {"units": D},
        STEPS,
        {"keys": X, "memory": X, "memory_mask": MASK},
        ["memory_mask"],
    ),
    layer(
        "MultiHeadAttention",
        "transformer:MultiHeadAttention",
        {"num_heads": 2, "key_dim": D // 2},
        STEPS,
        {"memory": X, "mask": MASK[:, None, :]},
        ["mask"],
    ),
    layer("AddNorm", "transformer:AddNorm", {"dropout": 0.1}, call={"y": X}),
    layer(
        "TransformerEncoder",
        "transformer:TransformerEncoder",
        {"embed_dim": D, "dense_dim": D, "num_heads": 2, "dropout": 0.1},
        call={"mask": MASK},
        optional=["mask"],
    ),
    layer(
        "TransformerDecoder",
        "transformer:TransformerDecoder",
        {"embed_dim": D, "dense_dim": D, "num_heads": 2},
        STEPS,
        {"memory": X, "memory_mask": MASK},
        ["memory_mask"],
    ),
    layer("Dropout", "dropout:Dropout", {"rate": 0.4}),
    layer("TokenEmbedding", "embedding:TokenEmbedding", {"vocabulary_size": V, "embed_dim": D, "scale": True}, TOKENS),
    layer(
        "TokenEmbedding-sinusoidal",
        "embedding:TokenEmbedding",
        {"vocabulary_size": V, "embed_dim": D, "positions": "sinusoidal", "max_steps": 9},
        TOKENS,
    ),
    layer(
        "TokenEmbedding-learned",
        "embedding:TokenEmbedding",
        {"vocabulary_size": V, "embed_dim": D, "positions": "learned", "max_steps": 9},
        TOKENS,
        {"offset": np.array([0, 4, 2], "int32")},
    ),
    layer("SinusoidalPositions", "positions:SinusoidalPositions", {"max_steps": 9}),
    layer("PositionEmbedding", "positions:PositionEmbedding", {"max_steps": 9}),
    layer(
        "Frames",
        "sliding.frames:Frames",
        {"width_enc": S, "width_dec": T, "batch_size": B},
        [TOKENS, LENGTHS],
        {"dec": [TARGET, np.array([1, 4, 0], "int32")], "tgt": [TOKENS, np.array([2, 5, 1], "int32")]},
    ),
    layer(
        "ToDense",
        "sliding.ragged:ToDense",
        {"width": 4, "keep": "last"},
        np.array([3, 4, 5, 6, 7], "int32"),
        {"row_splits": np.array([0, 2, 2, 5], "int32")},
    ),
    layer("Embed", "sliding.blocks:Embed", {"vocabulary_size": V, "embed_dim": D}, TOKENS),
    layer("Attention", "sliding.blocks:Attention", {"embed_dim": D}, call={"context": X, "queries": ~MASK}),
    layer("Conclusion", "sliding.blocks:Conclusion", {"width": S, "embed_dim": D, "dense_dim": D}),
    layer(
        "Encoder",
        "sliding.blocks:Encoder",
        {"width": S, "embed_dim": D, "dense_dim": D},
        call={"queries": ~MASK, "x_mask": MASK},
        optional=["x_mask"],
    ),
    layer(
        "Decoder", "sliding.blocks:Decoder", {"width": S, "embed_dim": D, "dense_dim": D}, call={"context": X, "queries": ~MASK}
    ),
    layer(
        "Encode",
        "sliding.blocks:Encode",
        {"width": S, "embed_dim": D, "dense_dim": D, "num_layers": 2},
        call={"queries": ~MASK},
    ),
    layer(
        "Decode",
        "sliding.blocks:Decode",
        {"width": S, "embed_dim": D, "dense_dim": D, "num_layers": 2},
        call={"context": X, "queries": ~MASK, "x_mask": MASK},
        optional=["x_mask"],
    ),
    layer("Debed", "sliding.blocks:Debed", {"vocabulary_size": V, "embed_dim": D}, call={"lengths": LENGTHS}),
]
