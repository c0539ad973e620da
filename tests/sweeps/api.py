"""Calls the public API with arguments of every type and range, and returns how each call ended.

`outcomes` runs in one process per backend. The draws follow from the seed alone, so that the results can be compared.
"""

import importlib
import math

import numpy as np
from hypothesis import HealthCheck, Phase, given, seed, settings
from hypothesis import strategies as st

from k3seq.errors import K3SeqError

SMALL = st.integers(1, 4)
WRONG = st.sampled_from(
    [None, True, 0, -1, 1.5, math.nan, math.inf, "", "lstm", b"4", [], [2], (1, 2), {}, {"a": 1}, np.float32(2)]
)
RATE = st.sampled_from([0.0, 0.5, 0.9])

# target -> its arguments with a strategy of good values; any of them may be replaced by one of WRONG
CONSTRUCTORS = {
    "k3seq.layers:LSTM": {"units": SMALL, "padding": st.sampled_from(["right", "left"])},
    "k3seq.layers:GRU": {"units": SMALL},
    "k3seq.layers:BidirectionalLSTM": {"units": SMALL},
    "k3seq.layers:BidirectionalGRU": {"units": SMALL},
    "k3seq.layers:RecurrentStack": {
        "kind": st.sampled_from(["lstm", "gru"]),
        "units": st.just(4),
        "num_layers": st.just(2),
        "num_bidirectional": st.integers(0, 2),
        "dropout": RATE,
    },
    "k3seq.layers:GlobalAttention": {"units": SMALL},
    "k3seq.layers:Dropout": {"rate": RATE},
    "k3seq.layers:MultiHeadAttention": {"num_heads": SMALL, "key_dim": SMALL},
    "k3seq.layers:TransformerEncoder": {"embed_dim": SMALL, "dense_dim": SMALL, "num_heads": SMALL, "dropout": RATE},
    "k3seq.layers:TransformerDecoder": {"embed_dim": SMALL, "dense_dim": SMALL, "num_heads": SMALL, "dropout": RATE},
    "k3seq.layers:TokenEmbedding": {"vocabulary_size": SMALL, "embed_dim": SMALL},
    "k3seq.layers:SinusoidalPositions": {"max_steps": SMALL},
    "k3seq.layers:PositionEmbedding": {"max_steps": SMALL},
    "k3seq.layers.sliding:Frames": {"width_enc": SMALL, "width_dec": SMALL, "batch_size": SMALL},
    "k3seq.layers.sliding:Conclusion": {"width": SMALL, "embed_dim": SMALL, "dense_dim": SMALL},
    "k3seq.layers.sliding:Encode": {"width": SMALL, "embed_dim": SMALL, "dense_dim": SMALL, "num_layers": SMALL},
    "k3seq.layers.sliding:ToDense": {"width": SMALL, "keep": st.sampled_from(["first", "last"])},
    "k3seq.models:LSTMSeq2Seq": {
        "source_vocabulary_size": st.just(7),
        "target_vocabulary_size": st.just(7),
        "embed_dim": SMALL,
        "units": SMALL,
        "num_layers": st.integers(1, 2),
        "dropout": RATE,
    },
    "k3seq.models:AttentionSeq2Seq": {
        "source_vocabulary_size": st.just(7),
        "target_vocabulary_size": st.just(7),
        "embed_dim": SMALL,
        "units": st.just(4),
        "dropout": RATE,
    },
    "k3seq.models:TransformerSeq2Seq": {
        "source_vocabulary_size": st.just(7),
        "target_vocabulary_size": st.just(7),
        "embed_dim": st.just(4),
        "dense_dim": SMALL,
        "num_heads": st.sampled_from([1, 2]),
        "num_layers": st.just(1),
        "max_steps": SMALL,
    },
    "k3seq.models:SlidingSeq2Seq": {
        "source_vocabulary_size": st.just(7),
        "target_vocabulary_size": st.just(7),
        "width_source": SMALL,
        "width_target": SMALL,
        "embed_dim": SMALL,
        "dense_dim": SMALL,
        "num_layers": st.just(1),
    },
    "k3seq.models:LSTMEncoder": {
        "vocabulary_size": SMALL,
        "embed_dim": SMALL,
        "units": SMALL,
        "num_layers": SMALL,
        "dropout": RATE,
    },
    "k3seq.models:LSTMDecoder": {
        "vocabulary_size": SMALL,
        "embed_dim": SMALL,
        "units": SMALL,
        "num_layers": SMALL,
        "dropout": RATE,
    },
    "k3seq.layers.sliding:Attention": {"embed_dim": SMALL},
    "k3seq.layers.sliding:Embed": {"vocabulary_size": SMALL, "embed_dim": SMALL},
    "k3seq.layers.sliding:Encoder": {"width": SMALL, "embed_dim": SMALL, "dense_dim": SMALL},
    "k3seq.layers.sliding:Decoder": {"width": SMALL, "embed_dim": SMALL, "dense_dim": SMALL},
    "k3seq.layers.sliding:Decode": {"width": SMALL, "embed_dim": SMALL, "dense_dim": SMALL, "num_layers": SMALL},
    "k3seq.decode:DiverseGroups": {"groups": SMALL, "strength": RATE},
    "k3seq.decode:Temperature": {"temperature": st.sampled_from([0.5, 2.0])},
    "k3seq.decode:TopK": {"count": SMALL},
    "k3seq.decode:TopP": {"mass": st.just(0.9)},
    "k3seq.decode:MinP": {"share": st.just(0.1)},
    "k3seq.decode:LengthPenalty": {"power": RATE},
    "k3seq.decode:CoveragePenalty": {"weight": RATE},
    "k3seq.decode:MinLength": {"length": SMALL},
    "k3seq.decode:MaxLength": {"length": SMALL},
    "k3seq.decode:NoRepeat": {"size": SMALL},
    "k3seq.decode:RepetitionPenalty": {"penalty": st.sampled_from([1.0, 2.0])},
    "k3seq.decode:Forbid": {"tokens": st.just([3])},
    "k3seq.train:TokenCrossentropy": {"label_smoothing": RATE},
    "k3seq.data:Batches": {"examples": st.just([([4, 5], [6])]), "batch_size": SMALL, "seed": SMALL, "buckets": SMALL},
    "k3seq.data:CharTokenizer": {"symbols": st.just(["a", "b"])},
}


@st.composite
def calls(draw):
    """(target, arguments): at most one argument in three is of a wrong type or out of range."""
    target = draw(st.sampled_from(sorted(CONSTRUCTORS)))
    arguments = {}
    for name, good in CONSTRUCTORS[target].items():
        arguments[name] = draw(WRONG if draw(st.integers(0, 2)) == 0 else good)
    return target, arguments


def outcome(target, arguments):
    """ "made", the one line of a k3seq error, or the type and text of any other exception."""
    module, _, name = target.partition(":")
    try:
        getattr(importlib.import_module(module), name)(**arguments)
    except K3SeqError as error:
        text = str(error)
        return f"{type(error).__name__}: {text}" if "\n" not in text else f"several lines: {text!r}"
    except Exception as error:
        return f"raised {type(error).__name__}: {error}"
    return "made"


def outcomes(payload):
    """The calls and how they ended, for {"seed": int, "count": int}: [[call, outcome], ...]."""
    found = []

    @seed(payload["seed"])
    @settings(
        max_examples=payload["count"],
        database=None,
        deadline=None,
        phases=[Phase.generate],
        suppress_health_check=[HealthCheck.too_slow, HealthCheck.filter_too_much],
    )
    @given(calls())
    def sweep(call):
        target, arguments = call
        found.append([f"{target}({', '.join(f'{k}={v!r}' for k, v in arguments.items())})", outcome(target, arguments)])

    sweep()
    return found


# (labels, sample_weight) of 2 rows of 3 steps, and a source: what is wrong with each is in its name
BATCHES = {
    "right": {},
    "labels (b, 1)": {"labels": (2, 1)},
    "labels (b,)": {"labels": (2,)},
    "labels too long": {"labels": (2, 5)},
    "labels of another batch": {"labels": (3, 3)},
    "labels of text": {"labels": "text"},
    "labels of bool": {"labels": "bool"},
    "no labels": {"labels": None},
    "label above": {"labels": 99},
    "label below": {"labels": -1},
    "weight (b,)": {"weight": (2,)},
    "weight (b, 1)": {"weight": (2, 1)},
    "weight (b, t)": {"weight": (2, 3)},
    "weight (t,)": {"weight": (3,)},
    "weight (b, t, 1)": {"weight": (2, 3, 1)},
    "weight negative": {"weight": -1.0},
    "weight nan": {"weight": math.nan},
    "no source steps": {"source": (2, 0)},
    "source of floats": {"source": "float"},
    "source (b,)": {"source": (2,)},
    "source id above": {"source": 99},
    "source lengths above": {"lengths": [9, 1]},
    "source lengths of another batch": {"lengths": [1]},
    "source lengths (b, 1)": {"lengths": [[1], [1]]},
    "source lengths of floats": {"lengths": [1.0, 2.0]},
    "target of another batch": {"target": (3, 3)},
    "no target": {"target": None},
}
WAYS = ("fit", "evaluate", "train_on_batch", "test_on_batch")


def batch_of(labels=(2, 3), weight=None, source=(2, 4), lengths=None, target=(2, 3)):
    """(x, y, sample_weight) with one part of it wrong."""

    def ids(wanted, shape):
        if wanted == "text":
            return np.full(shape, "a")
        if wanted in ("bool", "float"):
            return np.full(shape, 1, {"bool": "bool", "float": "float32"}[wanted])
        if isinstance(wanted, int):
            return np.full(shape, wanted, "int32")
        return np.full(wanted, 4, "int32")

    x = {"source": ids(source, (2, 4))}
    if target is not None:
        x["target"] = ids(target, (2, 3))
    if lengths is not None:
        x["source_lengths"] = np.array(lengths)
    y = None if labels is None else ids(labels, (2, 3))
    if weight is not None:
        weight = np.full((2, 3), weight, "float32") if isinstance(weight, float) else np.ones(weight, "float32")
    return x, y, weight


def batches(payload):
    """{"batch, way": loss as text or error} of LSTM models with the same weights, which an SGD of rate 0 keeps."""
    import keras

    from k3seq.models import LSTMSeq2Seq
    from k3seq.random import initialize

    found, models = {}, {}
    for way in WAYS:
        models[way] = initialize(LSTMSeq2Seq(7, 7, embed_dim=2, units=2), 0)
        models[way].compile(keras.optimizers.SGD(0.0))
    for name, wrong in BATCHES.items():
        x, y, weight = batch_of(**wrong)
        for way in WAYS:
            options = (
                {"verbose": 0, "epochs": 1, "batch_size": 2} if way == "fit" else {"verbose": 0} if way == "evaluate" else {}
            )
            try:
                models[way].reset_metrics()
                result = getattr(models[way], way)(x, y, sample_weight=weight, **options)
                result = result.history["loss"] if way == "fit" else result
                found[f"{name}, {way}"] = f"{float(np.ravel(result)[0]):.4f}"
            except K3SeqError as error:
                found[f"{name}, {way}"] = f"{type(error).__name__}: {error}"
            except Exception as error:
                found[f"{name}, {way}"] = f"raised {type(error).__name__}: {error}"
    return found
