"""The cases of `k3seq.models` and `k3seq.seq2seq`."""

from typing import Any

import numpy as np

from k3seq.parity.case import Case, Spec
from k3seq.parity.own_cases.sizes import LENGTHS, MASK, STATE, STEPS, TARGET, TOKENS, WEIGHT, B, D, S, T, V, X

SIZES = {"source_vocabulary_size": V, "target_vocabulary_size": V}
PAIRS = {"source": TOKENS, "source_lengths": LENGTHS, "target": TARGET}
STREAM = {
    "enc": TOKENS,
    "enc_lengths": Spec((B,), "int32", 0, S + 1),
    "dec": Spec((B, T), "int32", 0, V),
    "dec_lengths": Spec((B,), "int32", 1, T + 1),
    "tgt": TARGET,
    "tgt_lengths": Spec((B,), "int32", 1, T + 1),
}


def seq2seq(name: str, factory: str, **arguments: Any) -> Case:
    """A case of a seq2seq model, which trains on tokens and decodes."""
    options = {"labels": Spec((B, T), "int32", 2, V), "sample_weight": WEIGHT, "decode": {"max_steps": T}}
    return Case(name, f"k3seq.models.{factory}", {**SIZES, **arguments}, PAIRS, **options)


def sliding(name: str, **arguments: Any) -> Case:
    """A case of the sliding-context model of arithmetic."""
    sizes = {"batch_size": B, "dense_dim": D, "embed_dim": D, "vocabulary_size": V, "width_dec": T, "width_enc": S}
    return Case(
        name, "k3seq.models.sliding_arithmetic:SlidingArithmetic", {**sizes, **arguments}, STREAM, labels=TARGET, batches=3
    )


def attending(mechanism: str) -> Case:
    """A case of an attention mechanism of `k3seq.seq2seq` inside `attending.Attending`."""
    memory = {"memory": X, "memory_lengths": LENGTHS, "steps": STEPS, "lengths": np.array([4, 0, 2], "int32")}
    return Case(
        mechanism, "k3seq.parity.own_cases.attending:Attending", {"mechanism": mechanism, "units": D, "size": V}, memory
    )


MECHANISMS = ("LuongAttention", "BahdanauAttention", "LuongMonotonicAttention", "BahdanauMonotonicAttention")
MODELS = [
    Case(
        "LSTMEncoder",
        "k3seq.models.lstm:LSTMEncoder",
        {
            "vocabulary_size": V,
            "embed_dim": D,
            "units": D,
            "num_layers": 2,
            "bidirectional": True,
            "dropout": 0.1,
            "name": "encoder",
        },
        TOKENS,
        {"lengths": LENGTHS},
        ("lengths",),
    ),
    Case(
        "LSTMDecoder",
        "k3seq.models.lstm:LSTMDecoder",
        {"vocabulary_size": V, "embed_dim": D, "units": D, "name": "decoder"},
        TARGET,
        {"states": [[STATE, STATE]]},
    ),
    Case("MaskedMean", "k3seq.models.examples.document:MaskedMean", {"name": "mean"}, X, {"keep": MASK}),
    seq2seq("LSTMSeq2Seq", "lstm:LSTMSeq2Seq", embed_dim=D, units=D),
    seq2seq("AttentionSeq2Seq", "lstm:AttentionSeq2Seq", embed_dim=D, units=D, dropout=0.1),
    seq2seq(
        "TransformerSeq2Seq", "transformer:TransformerSeq2Seq", embed_dim=D, dense_dim=D, num_heads=2, num_layers=1, max_steps=7
    ),
    seq2seq(
        "SlidingSeq2Seq",
        "sliding_seq2seq:SlidingSeq2Seq",
        width_source=S,
        width_target=T,
        embed_dim=D,
        dense_dim=D,
        num_layers=1,
    ),
    sliding("SlidingArithmetic", num_layers=1),
    sliding("SlidingArithmetic-masked", num_layers=2, faithful=False),
    Case(
        "BookDecoder",
        "k3seq.models.examples.book:book_decoder",
        {"vocabulary_size": V, "embed_dim": D, "units": D},
        [TOKENS, TARGET, np.array([4, 0, 2], "int32")],
        labels=TARGET,
        loss="sparse_categorical_crossentropy",
    ),
    Case(
        "DocumentClassifier",
        "k3seq.models.examples.document:document_classifier",
        {"vocabulary_size": V, "max_steps": S, "tags": 3, "departments": 4, "embed_dim": D, "dense_dim": D, "num_heads": 2},
        {"title": Spec((B, S), "int32", 0, V), "body": TOKENS, "tags": Spec((B, 3))},
        labels={"priority": np.array([[1.0], [0.0], [1.0]], "float32"), "department": np.eye(4, dtype="float32")[[0, 3, 1]]},
        loss="k3seq.models.examples.document:LOSSES",
    ),
    Case(
        "VAE",
        "k3seq.models.examples.vae:VAE",
        {"latent": 2, "image_shape": [8, 8, 1]},
        {"image": Spec((B, 8, 8, 1), low=0.0, high=1.0), "noise": Spec((B, 2))},
        labels=None,
        rates={"sgd": 0.02, "adam": 0.01},
    ),
    *map(attending, MECHANISMS),
]
