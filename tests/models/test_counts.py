"""Exact parameter counts, per layer, trainable and not, from the formulas of the layers' definitions."""

import math

import pytest

from k3seq.layers import LSTM, BidirectionalLSTM, GlobalAttention
from k3seq.layers.embedding import TokenEmbedding
from k3seq.layers.positions import PositionEmbedding, SinusoidalPositions
from k3seq.layers.sliding.blocks import Attention, Conclusion, Debed, Decode, Decoder, Embed, Encode, Encoder
from k3seq.layers.sliding.frames import Frames
from k3seq.layers.transformer import AddNorm, MultiHeadAttention, TransformerDecoder, TransformerEncoder
from k3seq.models import registry
from k3seq.models.examples.book import book_decoder
from k3seq.models.examples.document import document_classifier
from k3seq.models.examples.vae import VAE
from k3seq.models.lstm import AttentionSeq2Seq, LSTMDecoder, LSTMEncoder, LSTMSeq2Seq
from k3seq.models.sliding_arithmetic import SlidingArithmetic
from k3seq.models.sliding_seq2seq import SlidingSeq2Seq
from k3seq.models.transformer import TransformerSeq2Seq

STEPS = (None, None)


def size(weights):
    return sum(math.prod(weight.shape) for weight in weights)


def per_layer(model):
    """Parameters of each layer that has some; of the model's own weights, those of no layer, under ""."""
    found = {layer.name: size(layer.weights) for layer in model.layers}
    found[""] = size(model.weights) - sum(found.values())
    return {name: count for name, count in found.items() if count}


# The formulas. Sizes as in the layers' arguments; i: units that come in, m: units of the memory.


def dense(i, units):
    return (i + 1) * units


def lstm(i, d):
    return 4 * d * (i + d + 1)  # four gates, each with a kernel for the input, one for the state, and a bias


def lstms(vocabulary, embedding, units, depth=1, both_ways=False):
    first = 2 * lstm(embedding, units // 2) if both_ways else lstm(embedding, units)
    return vocabulary * embedding + first + (depth - 1) * lstm(units, units)


def global_attention(d, m, units):
    return m * d + (m + d) * units


def heads(d, m, count, key):
    return dense(d, count * key) + 2 * dense(m, count * key) + dense(count * key, d)  # query, key and value, output


def norm(d):
    return 2 * d


def transformer_encoder(d, inner, count, key):
    return heads(d, d, count, key) + dense(d, inner) + dense(inner, d) + 2 * norm(d)


def transformer_decoder(d, m, inner, count, key):
    return transformer_encoder(d, inner, count, key) + heads(d, m, count, key) + norm(d)


def conclusion(width, units, inner):
    return dense(width * units, inner) + inner * width * units


def sliding_encoder(width, units, inner):
    return 3 * units**2 + conclusion(width, units, inner)


def sliding_decoder(width, units, inner):
    return 6 * units**2 + conclusion(width, units, inner)


def convolution(i, filters):
    return (3 * 3 * i + 1) * filters


# What `registry.names()` names: parameters of each layer, not trainable ones, total: the seeds' own figures, or sums
# done by hand of the formulas beside them.
SEEDS = {
    "lstm": ({"encoder": 54_440, "decoder": 54_440, "output": 32_500}, 0, 141_380),
    "sliding-arithmetic": ({"frames": 125, "embed": 120, "encode": 90_516, "decode": 54_732, "debed": 140}, 125, 145_633),
    "book-decoder": (
        # vocabulary 100, embedding 10, units 512: 4 * 512 * (10 + 512 + 1) = 1,071,104
        {"embedding": 100 * 10, "encoder": 1_071_104, "decoder": 1_071_104, "output": 513 * 100},
        0,
        2_194_508,
    ),
    "document-classifier": (
        # units 64 = 2 heads of 32: attention 4 * 65 * 64 = 16,640; dense 2 * 65 * 64 = 8,320; norms 2 * 128: 25,216.
        # Both outputs see 2 * 64 + 12 features.
        {
            "embedding": 10_000 * 64,
            **{"title_encoder": 25_216, "body_encoder": 25_216},
            **{"priority": 141, "department": 141 * 4},
        },
        0,
        691_137,
    ),
    "vae": (
        # 28 * 28 becomes 7 * 7 * 64 = 3,136 numbers.
        # encoder: 10 * 32 + 289 * 64 + 3,137 * 16 + 2 * 17 * 2; decoder: 3 * 3,136 + 577 * 64 + 577 * 32 + 289 * 1
        {"encoder": 69_076, "decoder": 65_089},
        0,
        134_165,
    ),
}


def test_every_name_of_the_registry_has_a_count_here():
    assert list(SEEDS) == registry.names()


@pytest.mark.parametrize("name", SEEDS)
def test_the_counts_of_the_sources(name):
    layers, frozen, total = SEEDS[name]
    model = registry.create(name)
    assert per_layer(model) == layers
    assert sum(layers.values()) == total == model.count_params()
    assert (size(model.trainable_weights), size(model.non_trainable_weights)) == (total - frozen, frozen)


def test_the_sliding_model_trains_all_but_its_context():
    layers, frozen, total = SEEDS["sliding-arithmetic"]
    assert (frozen, total - frozen) == (layers["frames"], 145_508)


def lstm_seq2seq(source, target, embedding, units, depth):
    return {
        "encoder": lstms(source, embedding, units, depth),
        "decoder": lstms(target, embedding, units, depth),
        "output": dense(units, target),
    }


def attention_seq2seq(source, target, embedding, units, depth):
    changed = {"encoder": lstms(source, embedding, units, depth, True), "attention": global_attention(units, units, units)}
    return {**lstm_seq2seq(source, target, embedding, units, depth), **changed}


def transformer_seq2seq(source, target, units, inner, count, depth):
    block = (inner, count, units // count)
    return {
        "source_embedding": source * units,
        "target_embedding": target * units,
        **{f"encoder_{i}": transformer_encoder(units, *block) for i in range(depth)},
        **{f"decoder_{i}": transformer_decoder(units, units, *block) for i in range(depth)},
        "output": dense(units, target),
    }


def sliding_arithmetic(batch, inner, hidden, stacks, vocabulary, width_dec, width_enc):
    return {
        "frames": batch * width_enc,
        "embed": vocabulary * hidden,
        "encode": stacks * sliding_encoder(width_enc, hidden, inner),
        "decode": stacks * sliding_decoder(width_dec, hidden, inner),
        "debed": dense(hidden, vocabulary),
    }


def sliding_seq2seq(source, target, width_source, width_target, units, inner, stacks):
    return {
        "embed": (source + target) * units,
        "encode": stacks * sliding_encoder(width_source, units, inner),
        "decode": stacks * sliding_decoder(width_target, units, inner),
        "debed": dense(units, target),
        "": 1,  # the counter of draws
    }


def book(vocabulary, embedding, units):
    recurrent = {"encoder": lstm(embedding, units), "decoder": lstm(embedding, units)}
    return {"embedding": vocabulary * embedding, **recurrent, "output": dense(units, vocabulary)}


def document(words, _steps, tags, departments, units, inner, count):
    features = 2 * units + tags
    encoder = transformer_encoder(units, inner, count, units // count)
    ends = {"priority": dense(features, 1), "department": dense(features, departments)}
    return {"embedding": words * units, "title_encoder": encoder, "body_encoder": encoder, **ends}


def vae(latent, shape):
    height, width, channels = shape
    flat = height // 4 * (width // 4) * 64
    return {
        "encoder": convolution(channels, 32) + convolution(32, 64) + dense(flat, 16) + 2 * dense(16, latent),
        "decoder": dense(latent, flat) + convolution(64, 64) + convolution(64, 32) + convolution(32, channels),
    }


# (model, parameters of each layer, layers that are not trained, two sizes)
MODELS = [
    (LSTMSeq2Seq, lstm_seq2seq, (), [(500, 500, 50, 64, 1), (9, 11, 6, 8, 3)]),
    (AttentionSeq2Seq, attention_seq2seq, (), [(30, 42, 128, 256, 1), (9, 11, 6, 8, 3)]),
    (TransformerSeq2Seq, transformer_seq2seq, (), [(30, 42, 64, 256, 4, 2), (9, 11, 6, 7, 3, 1)]),
    (SlidingArithmetic, sliding_arithmetic, ("frames",), [(5, 150, 6, 2, 20, 15, 25), (3, 7, 4, 3, 20, 6, 8)]),
    (SlidingSeq2Seq, sliding_seq2seq, ("",), [(30, 42, 12, 14, 16, 64, 2), (9, 11, 5, 6, 4, 7, 3)]),
    (book_decoder, book, (), [(100, 10, 512), (9, 5, 6)]),
    (document_classifier, document, (), [(10_000, 100, 12, 4, 64, 64, 2), (9, 5, 3, 2, 6, 7, 3)]),
    (VAE, vae, (), [(2, (28, 28, 1)), (3, (8, 12, 3))]),
]


@pytest.mark.parametrize("index", [0, 1], ids=["first-size", "second-size"])
@pytest.mark.parametrize("factory, expected, frozen, sizes", MODELS, ids=[factory.__name__ for factory, *_ in MODELS])
def test_every_model_counts_by_its_formula(factory, expected, frozen, sizes, index):
    model, layers = factory(*sizes[index]), expected(*sizes[index])
    assert per_layer(model) == layers
    assert size(model.non_trainable_weights) == sum(layers[name] for name in frozen)
    assert model.count_params() == sum(layers.values())
    assert per_layer(model) != expected(*sizes[1 - index])


def with_memory(i, d):
    return [(*STEPS, i), (*STEPS, 11)]


# The build argument of a layer: an input of i units, tokens, or nothing where its arguments suffice.
OF_UNITS, OF_TOKENS, OF_ITSELF = (lambda i, d: [(*STEPS, i)]), (lambda i, d: [STEPS]), (lambda i, d: [])

# name: (layer of sizes i and d, shapes to build it with, formula)
LAYERS = {
    "LSTM": (lambda i, d: LSTM(d), OF_UNITS, lstm),
    "BidirectionalLSTM": (lambda i, d: BidirectionalLSTM(d), OF_UNITS, lambda i, d: 2 * lstm(i, d)),
    "GlobalAttention": (
        lambda i, d: GlobalAttention(d),
        lambda i, d: [(*STEPS, i), None, (*STEPS, 11)],
        lambda i, d: global_attention(i, 11, d),
    ),
    "MultiHeadAttention-self": (lambda i, d: MultiHeadAttention(3, d), OF_UNITS, lambda i, d: heads(i, i, 3, d)),
    "MultiHeadAttention-memory": (lambda i, d: MultiHeadAttention(3, d), with_memory, lambda i, d: heads(i, 11, 3, d)),
    "AddNorm": (lambda i, d: AddNorm(), OF_UNITS, lambda i, d: norm(i)),
    "TransformerEncoder": (lambda i, d: TransformerEncoder(i, d, 2), OF_UNITS, lambda i, d: transformer_encoder(i, d, 2, i)),
    "TransformerEncoder-key_dim": (
        lambda i, d: TransformerEncoder(i, d, 2, 3),
        OF_UNITS,
        lambda i, d: transformer_encoder(i, d, 2, 3),
    ),
    "TransformerDecoder": (
        lambda i, d: TransformerDecoder(i, d, 2),
        with_memory,
        lambda i, d: transformer_decoder(i, 11, d, 2, i),
    ),
    "TokenEmbedding": (lambda i, d: TokenEmbedding(i, d), OF_TOKENS, lambda i, d: i * d),
    "TokenEmbedding-sinusoidal": (lambda i, d: TokenEmbedding(i, d, "sinusoidal", 7), OF_TOKENS, lambda i, d: i * d),
    "TokenEmbedding-learned": (lambda i, d: TokenEmbedding(i, d, "learned", 7), OF_TOKENS, lambda i, d: (i + 7) * d),
    "PositionEmbedding": (lambda i, d: PositionEmbedding(d), OF_UNITS, lambda i, d: d * i),
    "LSTMEncoder": (lambda i, d: LSTMEncoder(i, 5, d, 2), OF_TOKENS, lambda i, d: lstms(i, 5, d, 2)),
    "LSTMEncoder-both-ways": (lambda i, d: LSTMEncoder(i, 5, d, 2, True), OF_TOKENS, lambda i, d: lstms(i, 5, d, 2, True)),
    "LSTMDecoder": (lambda i, d: LSTMDecoder(i, 5, d, 3), OF_TOKENS, lambda i, d: lstms(i, 5, d, 3)),
    "Embed": (lambda i, d: Embed(i, d), OF_ITSELF, lambda i, d: i * d),
    "Attention": (lambda i, d: Attention(d), OF_ITSELF, lambda i, d: 3 * d * d),
    "Conclusion": (lambda i, d: Conclusion(i, d, 9), OF_ITSELF, lambda i, d: conclusion(i, d, 9)),
    "Encoder": (lambda i, d: Encoder(i, d, 9), OF_ITSELF, lambda i, d: sliding_encoder(i, d, 9)),
    "Decoder": (lambda i, d: Decoder(i, d, 9), OF_ITSELF, lambda i, d: sliding_decoder(i, d, 9)),
    "Encode": (lambda i, d: Encode(i, d, 9, 3), OF_ITSELF, lambda i, d: 3 * sliding_encoder(i, d, 9)),
    "Decode": (lambda i, d: Decode(i, d, 9, 3), OF_ITSELF, lambda i, d: 3 * sliding_decoder(i, d, 9)),
    "Debed": (lambda i, d: Debed(i, d), OF_ITSELF, lambda i, d: dense(d, i)),
}
LAYER_SIZES = [(6, 4), (13, 10)]


def built(layer, shapes):
    layer.build(*shapes)
    return layer


@pytest.mark.parametrize("index", [0, 1], ids=["first-size", "second-size"])
@pytest.mark.parametrize("name", LAYERS)
def test_every_layer_counts_by_its_formula(name, index):
    (make, shapes, expected), sizes = LAYERS[name], LAYER_SIZES[index]
    layer = built(make(*sizes), shapes(*sizes))
    assert size(layer.weights) == size(layer.trainable_weights) == expected(*sizes)
    assert size(layer.weights) != expected(*LAYER_SIZES[1 - index])


@pytest.mark.parametrize("batch, width", [(5, 25), (3, 8)])
def test_frames_hold_a_window_per_row_that_is_not_trained(batch, width):
    layer = built(Frames(width, 4, batch), [None])
    assert (size(layer.trainable_weights), size(layer.non_trainable_weights)) == (0, batch * width)
    assert size(layer.weights) != (batch + 1) * width


def test_sinusoids_have_no_weights():
    assert built(SinusoidalPositions(9), [(*STEPS, 4)]).weights == []
