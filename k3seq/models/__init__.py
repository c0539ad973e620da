"""Seq2seq models, trained by the backend's step and decoded through `start` and `step`.

`k3seq.models.examples` holds models that only show how something is done.
"""

from k3seq.runtime import backend_check

backend_check.check()  # before anything imports keras

from k3seq.models.lstm import AttentionSeq2Seq, LSTMDecoder, LSTMEncoder, LSTMSeq2Seq
from k3seq.models.seq2seq import Seq2Seq
from k3seq.models.sliding_arithmetic import SlidingArithmetic
from k3seq.models.sliding_seq2seq import SlidingSeq2Seq
from k3seq.models.transformer import TransformerSeq2Seq

__all__ = [
    "AttentionSeq2Seq",
    "LSTMDecoder",
    "LSTMEncoder",
    "LSTMSeq2Seq",
    "Seq2Seq",
    "SlidingArithmetic",
    "SlidingSeq2Seq",
    "TransformerSeq2Seq",
]
