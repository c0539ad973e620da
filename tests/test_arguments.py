"""Bad arguments of layers, models, losses and initializers: the same mistake raises the same `UsageError`."""

import numpy as np
import pytest

from k3seq import arguments
from k3seq import layers as k
from k3seq.errors import UsageError
from k3seq.layers import dense, sliding, transformer
from k3seq.layers.alignments import monotonic_attention
from k3seq.layers.sliding.ragged import pad_rows, to_dense
from k3seq.models import (
    AttentionSeq2Seq,
    LSTMDecoder,
    LSTMEncoder,
    LSTMSeq2Seq,
    SlidingArithmetic,
    SlidingSeq2Seq,
    TransformerSeq2Seq,
)
from k3seq.models.examples import VAE, book_decoder, document_classifier
from k3seq.random import initializers, keyed
from k3seq.train import TokenCrossentropy, chunked_token_crossentropy

pytestmark = pytest.mark.once

VOCABULARIES = {"source_vocabulary_size": 5, "target_vocabulary_size": 5}
BLOCK = {"embed_dim": 4, "dense_dim": 4, "num_heads": 2}
MODELS = (LSTMEncoder, LSTMDecoder, LSTMSeq2Seq, AttentionSeq2Seq, TransformerSeq2Seq)
WINDOW = {"width": 3, "embed_dim": 4, "dense_dim": 4}
LSTMS = {"embed_dim": 4, "units": 4, "num_layers": 1}

# What is called -> its arguments that must be integers of at least 1, and other arguments that it needs.
SIZES = {
    dense.Projection: ({"units": 2}, {}),
    k.GlobalAttention: ({"units": 2}, {}),
    k.LSTM: ({"units": 2}, {}),
    k.GRU: ({"units": 2}, {}),
    k.BidirectionalLSTM: ({"units": 2}, {}),
    k.BidirectionalGRU: ({"units": 2}, {}),
    k.RecurrentStack: ({"units": 2, "num_layers": 1}, {"kind": "gru"}),
    k.MultiHeadAttention: ({"num_heads": 2, "key_dim": 2}, {}),
    k.TransformerEncoder: (BLOCK, {}),
    k.TransformerDecoder: (BLOCK, {}),
    k.TokenEmbedding: ({"vocabulary_size": 5, "embed_dim": 4, "max_steps": 3}, {"positions": "learned"}),
    k.SinusoidalPositions: ({"max_steps": 3}, {}),
    k.PositionEmbedding: ({"max_steps": 3}, {}),
    sliding.Attention: ({"embed_dim": 4}, {}),
    sliding.Embed: ({"vocabulary_size": 5, "embed_dim": 4}, {}),
    sliding.Debed: ({"vocabulary_size": 5, "embed_dim": 4}, {}),
    sliding.Conclusion: (WINDOW, {}),
    sliding.Encoder: (WINDOW, {}),
    sliding.Decoder: (WINDOW, {}),
    sliding.Encode: ({**WINDOW, "num_layers": 1}, {}),
    sliding.Decode: ({**WINDOW, "num_layers": 1}, {}),
    sliding.Frames: ({"width_enc": 3, "width_dec": 3, "batch_size": 2}, {}),
    sliding.ToDense: ({"width": 3}, {}),
    to_dense: ({"width": 3}, {"values": [1], "row_splits": [0, 1]}),
    pad_rows: ({"width": 3}, {"rows": [[1]]}),
    LSTMEncoder: ({"vocabulary_size": 5, **LSTMS}, {}),
    LSTMDecoder: ({"vocabulary_size": 5, **LSTMS}, {}),
    LSTMSeq2Seq: ({**VOCABULARIES, **LSTMS}, {}),
    AttentionSeq2Seq: ({**VOCABULARIES, **LSTMS}, {}),
    TransformerSeq2Seq: ({**VOCABULARIES, **BLOCK, "num_layers": 1, "max_steps": 4}, {}),
    SlidingSeq2Seq: (
        {**VOCABULARIES, "width_source": 3, "width_target": 3, "embed_dim": 4, "dense_dim": 4, "num_layers": 1},
        {},
    ),
    SlidingArithmetic: (
        {
            "batch_size": 2,
            "dense_dim": 4,
            "embed_dim": 4,
            "num_layers": 1,
            "vocabulary_size": 5,
            "width_dec": 3,
            "width_enc": 3,
        },
        {},
    ),
    VAE: ({"latent": 2}, {"image_shape": (4, 4, 1)}),
    book_decoder: ({"vocabulary_size": 5, "embed_dim": 4, "units": 2}, {}),
    document_classifier: ({"vocabulary_size": 5, "max_steps": 3, "tags": 2, "departments": 2, **BLOCK}, {}),
    chunked_token_crossentropy: ({"chunks": 1}, {"outputs": None, "kernel": None, "bias": None, "labels": None}),
}
# What is called -> the name of a rate in [0, 1], and other arguments.
RATES = {
    k.Dropout: ("rate", {}),
    transformer.AddNorm: ("dropout", {}),
    **{made: ("dropout", SIZES[made][0]) for made in (k.TransformerEncoder, k.TransformerDecoder)},
    k.RecurrentStack: ("dropout", {"kind": "lstm", "units": 2}),
    **{
        made: ("dropout", SIZES[made][0])
        for made in (LSTMEncoder, LSTMDecoder, LSTMSeq2Seq, AttentionSeq2Seq, TransformerSeq2Seq)
    },
}
BAD_SIZES = (0, -1, 1.5, True, "3", None)
BAD_RATES = (-0.1, 1.1, float("nan"), True, "0.1", None)


def refused(made, **options):
    with pytest.raises(UsageError) as caught:
        made(**options)
    return str(caught.value)


@pytest.mark.parametrize("made", SIZES, ids=lambda made: made.__name__)
def test_a_size_must_be_an_integer_of_at_least_1(made):
    sizes, others = SIZES[made]
    for name in sizes:
        for bad in BAD_SIZES:
            if (made, name, bad) == (k.TokenEmbedding, "max_steps", None):
                continue  # a missing max_steps has its own message
            expected = f"Expected {name} to be an integer of at least 1. Received: {name}={bad!r}"
            assert refused(made, **{**sizes, **others, name: bad}) == expected


@pytest.mark.parametrize("made", RATES, ids=lambda made: made.__name__)
def test_a_rate_must_be_a_number_in_0_to_1(made):
    name, others = RATES[made]
    for bad in BAD_RATES:
        expected = f"Expected {name} to be a number in [0, 1]. Received: {name}={bad!r}"
        assert refused(made, **{**others, name: bad}) == expected


LEFT = "Expected padding to be one of 'right', 'left'. Received: padding='middle'"
EVEN = "Expected units to be even where layers are bidirectional. Received: units=3"
HEADS = "Expected embed_dim to be a multiple of num_heads. Received: embed_dim=4, num_heads=3"
STEPS = "Expected max_steps with positions only. Received: positions="
OTHERS = [
    (k.LSTM, {"units": 2, "padding": "middle"}, LEFT),
    (k.BidirectionalGRU, {"units": 2, "padding": "middle"}, LEFT),
    (k.RecurrentStack, {"kind": "lstm", "units": 2, "padding": "middle"}, LEFT),
    (k.RecurrentStack, {"kind": "rnn", "units": 2}, "Expected kind to be one of 'lstm', 'gru'. Received: kind='rnn'"),
    (
        k.RecurrentStack,
        {"kind": "lstm", "units": 2, "num_bidirectional": 2},
        "Expected num_bidirectional to be an integer in 0..1. Received: num_bidirectional=2",
    ),
    (k.RecurrentStack, {"kind": "gru", "units": 3, "num_bidirectional": 1}, EVEN),
    (LSTMEncoder, {"vocabulary_size": 5, "embed_dim": 4, "units": 3, "bidirectional": True}, EVEN),
    (AttentionSeq2Seq, {**VOCABULARIES, "units": 3}, EVEN),
    (TransformerSeq2Seq, {**VOCABULARIES, "embed_dim": 4, "num_heads": 3}, HEADS),
    (document_classifier, {"embed_dim": 4, "num_heads": 3}, HEADS),
    (k.TokenEmbedding, {"vocabulary_size": 5, "embed_dim": 4, "positions": "learned"}, STEPS + "'learned', max_steps=None"),
    (k.TokenEmbedding, {"vocabulary_size": 5, "embed_dim": 4, "max_steps": 3}, STEPS + "None, max_steps=3"),
    (
        k.TokenEmbedding,
        {"vocabulary_size": 5, "embed_dim": 4, "positions": "sine", "max_steps": 3},
        "Expected positions to be one of None, 'sinusoidal', 'learned'. Received: positions='sine'",
    ),
    (sliding.ToDense, {"width": 3, "keep": "all"}, "Expected keep to be one of 'first', 'last'. Received: keep='all'"),
    (
        monotonic_attention,
        {"p_choose_i": [[1.0]], "previous_attention": [[1.0]], "mode": "soft"},
        "Expected mode to be one of 'parallel', 'recursive', 'hard'. Received: mode='soft'",
    ),
    (
        TokenCrossentropy,
        {"label_smoothing": 1.0},
        "Expected label_smoothing to be a number in [0, 1). Received: label_smoothing=1.0",
    ),
    (k.Dropout, {"rate": 0.1, "seed": None}, "Expected seed to be an integer in 0..2**64-1. Received: seed=None"),
    (
        k.Dropout,
        {"rate": 0.1, "noise_shape": (0, None)},
        "Expected noise_shape to be a tuple of positive integers and None. Received: noise_shape=(0, None)",
    ),
    (
        k.Dropout,
        {"rate": 0.1, "noise_shape": 3},
        "Expected noise_shape to be a tuple of positive integers and None. Received: noise_shape=3",
    ),
    (keyed.key, {"seed": -1}, "Expected seed to be an integer in 0..2**64-1. Received: seed=-1"),
    (initializers.GlorotUniform, {"seed": None}, "Expected seed to be an integer in 0..2**64-1. Received: seed=None"),
    (
        initializers.VarianceScaling,
        {"mode": "fan", "seed": 0},
        "Expected mode to be one of 'fan_in', 'fan_out', 'fan_avg'. Received: mode='fan'",
    ),
    (
        VAE,
        {"image_shape": (5, 4, 1)},
        "Expected image_shape as (height, width, channels), with height and width multiples of 4. "
        "Received: image_shape=(5, 4, 1)",
    ),
]


@pytest.mark.parametrize("made, options, message", OTHERS, ids=[f"{m.__name__}-{list(o)[-1]}" for m, o, _ in OTHERS])
def test_other_bad_arguments_are_named(made, options, message):
    assert refused(made, **options) == message


def test_good_arguments_pass():
    for made in SIZES:
        if made is not chunked_token_crossentropy:
            sizes, others = SIZES[made]
            made(**sizes, **others)
    for made, (name, others) in RATES.items():
        made(**others, **{name: 0.5})
    arguments.integer(0, 3, steps=3)
    arguments.real(0, 1, rate=1)


def test_numpy_integers_are_integers():
    arguments.positive(units=np.int64(3))
    assert refused(arguments.positive, units=np.int64(0)).endswith("units=np.int64(0)")
