"""Models: layers put together, each trained by its backend's step and decoded through `start` and `step`."""

from k3seq.runtime import backend_check

backend_check.check()  # before anything imports keras

from k3seq.models.examples.book import BookDecoder, book_decoder
from k3seq.models.examples.document import DocumentClassifier, document_classifier
from k3seq.models.lstm import AttentionSeq2Seq, LSTMDecoder, LSTMEncoder, LSTMSeq2Seq
from k3seq.models.seq2seq import Seq2Seq
from k3seq.models.sliding_arithmetic import SlidingArithmetic
from k3seq.models.sliding_seq2seq import SlidingSeq2Seq
from k3seq.models.transformer import TransformerSeq2Seq
from k3seq.models.examples.vae import VAE

__all__ = [
    "VAE",
    "AttentionSeq2Seq",
    "BookDecoder",
    "DocumentClassifier",
    "LSTMDecoder",
    "LSTMEncoder",
    "LSTMSeq2Seq",
    "Seq2Seq",
    "SlidingArithmetic",
    "SlidingSeq2Seq",
    "TransformerSeq2Seq",
    "book_decoder",
    "document_classifier",
]
