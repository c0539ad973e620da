"""Models: layers put together, each trained by its backend's step and decoded through `start` and `step`."""

from k3seq.models.lstm import AttentionSeq2Seq, LSTMDecoder, LSTMEncoder, LSTMSeq2Seq
from k3seq.models.seq2seq import Seq2Seq

__all__ = ["AttentionSeq2Seq", "LSTMDecoder", "LSTMEncoder", "LSTMSeq2Seq", "Seq2Seq"]
