"""Layers and masks on `keras.ops`: the same mathematics, parameter counts and weight names on every backend.

The layers of the sliding-context model are in `k3seq.layers.sliding`.
"""

from k3seq.runtime import backend_check

backend_check.check()  # before anything imports keras

from k3seq.layers import sliding
from k3seq.layers.dense import Dense
from k3seq.layers.dropout import Dropout
from k3seq.layers.embedding import Embedding, TokenEmbedding
from k3seq.layers.global_attention import GlobalAttention
from k3seq.layers.gru import GRU, BidirectionalGRU
from k3seq.layers.lstm import LSTM, BidirectionalLSTM
from k3seq.layers.masks import causal_mask, combine, key_mask, length_mask, masked_mean, masked_softmax
from k3seq.layers.positions import PositionEmbedding, SinusoidalPositions
from k3seq.layers.stack import RecurrentStack
from k3seq.layers.transformer import MultiHeadAttention, TransformerDecoder, TransformerEncoder

__all__ = [
    "GRU",
    "LSTM",
    "BidirectionalGRU",
    "BidirectionalLSTM",
    "Dense",
    "Dropout",
    "Embedding",
    "GlobalAttention",
    "MultiHeadAttention",
    "PositionEmbedding",
    "RecurrentStack",
    "SinusoidalPositions",
    "TokenEmbedding",
    "TransformerDecoder",
    "TransformerEncoder",
    "causal_mask",
    "combine",
    "key_mask",
    "length_mask",
    "masked_mean",
    "masked_softmax",
    "sliding",
]
