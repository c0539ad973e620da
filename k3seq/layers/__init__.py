"""Layers on `keras.ops`: the same mathematics, counts and weight names on every backend."""

from k3seq.runtime import backend_check

backend_check.check()  # before anything imports keras

from k3seq.layers.dropout import Dropout
from k3seq.layers.embedding import TokenEmbedding
from k3seq.layers.sliding.frames import Frames
from k3seq.layers.global_attention import GlobalAttention
from k3seq.layers.gru import GRU, BidirectionalGRU
from k3seq.layers.lstm import LSTM, BidirectionalLSTM
from k3seq.layers.positions import PositionEmbedding, SinusoidalPositions
from k3seq.layers.sliding.ragged import ToDense
from k3seq.layers.stack import RecurrentStack
from k3seq.layers.sliding.blocks import Attention, Conclusion, Debed, Decode, Decoder, Embed, Encode, Encoder
from k3seq.layers.transformer import MultiHeadAttention, TransformerDecoder, TransformerEncoder

__all__ = [
    "GRU",
    "LSTM",
    "Attention",
    "BidirectionalGRU",
    "BidirectionalLSTM",
    "Conclusion",
    "Debed",
    "Decode",
    "Decoder",
    "Dropout",
    "Embed",
    "Encode",
    "Encoder",
    "Frames",
    "GlobalAttention",
    "MultiHeadAttention",
    "PositionEmbedding",
    "RecurrentStack",
    "SinusoidalPositions",
    "ToDense",
    "TokenEmbedding",
    "TransformerDecoder",
    "TransformerEncoder",
]
