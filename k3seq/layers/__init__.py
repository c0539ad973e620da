"""Layers on `keras.ops`: the same mathematics, counts and weight names on every backend."""

from k3seq.layers.global_attention import GlobalAttention
from k3seq.layers.lstm import LSTM, BidirectionalLSTM

__all__ = ["LSTM", "BidirectionalLSTM", "GlobalAttention"]
