"""The suites. Each gives groups: lists of rows that are measured together. Imports no keras."""

from collections.abc import Mapping
from dataclasses import replace
from functools import partial

from k3seq.bench import problems
from k3seq.bench.problems import PEERS
from k3seq.bench.work import KERAS, Work
from k3seq.errors import UsageError
from k3seq.parity.case import Case, Spec
from k3seq.random.bits import Stream
from k3seq.runtime.matrix import Backend


def quick(backends: Mapping[str, Backend], jits: str) -> list[list[Work]]:
    """An overview in three minutes: an LSTM with its peers, padded rows, and decoding."""
    jits = "first" if jits == "matrix" else jits
    training = problems.lstm_training("lstm-v500", backends, jits, padded=(False, True))
    padded_natives = [row for row in training if row.problem.endswith("padded") and row.maker]
    group = [row for row in training if row not in padded_natives]
    return [group, problems.decoding("attention-v4000", 1, backends, jits)]


def train(backends: Mapping[str, Backend], jits: str) -> list[list[Work]]:
    """Train steps of every model."""
    return [
        problems.lstm_training("lstm-v500", backends, jits),
        problems.lstm_training("lstm-v4000", backends, jits),
        problems.attention_training(backends, jits),
        problems.transformer_training(backends, jits),
    ]


def decode(backends: Mapping[str, Backend], jits: str) -> list[list[Work]]:
    """Greedy decoding and beams of 5."""
    return [problems.decoding(name, beams, backends, jits) for name in problems.DECODED for beams in (1, 5)]


def layers(backends: Mapping[str, Backend], jits: str) -> list[list[Work]]:
    """Recurrent layers of k3seq, stock Keras and torch with gradients; unpadded and padded rows."""
    stock = f"{PEERS}.stock"
    lstm = {"k3seq": "k3seq.layers.lstm:LSTM", "keras": f"{stock}:lstm"}
    gru = {"k3seq": "k3seq.layers.gru:GRU", "keras": f"{stock}:gru"}
    one = partial(problems.layer, arguments={"units": 256}, backends=backends, jits=jits)
    two = {"k3seq": "k3seq.layers.lstm:BidirectionalLSTM"}
    return [
        [row for padded in (False, True) for row in one("layer-lstm-256", lstm, padded=padded, native=True)],
        [row for padded in (False, True) for row in one("layer-gru-256", gru, padded=padded)],
        [row for padded in (False, True) for row in one("layer-bilstm-2x256", two, padded=padded)],
    ]


def startup(backends: Mapping[str, Backend], jits: str) -> list[list[Work]]:
    """A fresh process until its first train step is done: import, model, compilation."""
    rows = problems.lstm_training("lstm-v500", backends, jits, padded=(False,))
    return [[replace(row, kind="startup", problem="startup lstm-v500") for row in rows]]


LENGTHS, BATCHES, UNITS, VOCABULARIES = (10, 20, 40, 80), (16, 32, 64, 128), (64, 128, 256, 512), (1000, 2000, 4000, 8000)


def scaling(backends: Mapping[str, Backend], jits: str) -> list[list[Work]]:
    """Time and memory of a train step against length, batch size, units and vocabulary size; and of the output layer with its
    loss, at once and in parts, against the vocabulary size."""
    base = dict(vocabulary=1000, embed_dim=128, units=128, source=20, target=20)
    axes = {
        "length": [(n, {"source": n, "target": n}, 32) for n in LENGTHS],
        "batch": [(n, {}, n) for n in BATCHES],
        "units": [(n, {"units": n}, 32) for n in UNITS],
        "vocabulary": [(n, {"vocabulary": n}, 32) for n in VOCABULARIES],
    }
    jits = "first" if jits == "matrix" else jits
    groups = [
        [row for place, sizes, batch in points for row in _point(axis, place, base | sizes, batch, backends, jits)]
        for axis, points in axes.items()
    ]
    return [*groups, [row for n in VOCABULARIES for row in _losses(n, backends, jits)]]


def _point(axis, place, sizes, batch, backends, jits):
    arguments = dict(source_vocabulary_size=sizes["vocabulary"], target_vocabulary_size=sizes["vocabulary"])
    arguments |= {key: sizes[key] for key in ("embed_dim", "units")}
    name = f"scaling {axis} {place}"
    case = problems.seq2seq(name, "k3seq.models.lstm:LSTMSeq2Seq", arguments, sizes, batch)
    tokens = float(case.sample_weight.sum())
    pairs = problems.modes(backends, jits)
    return [Work(case, name, "train", b, jit, tokens=tokens, at={axis: place}) for b, jit in pairs]


def _losses(vocabulary, backends, jits, batch=64, steps=40, units=256):
    """The loss at once and in 8 parts."""
    rows, name = [], f"loss vocabulary {vocabulary}"
    stream = Stream(0, name)
    values = Spec((batch, steps, units)).draw(stream)
    call = {"labels": Spec((batch, steps), "int32", 0, vocabulary).draw(stream)}
    for implementation, chunks in (("whole loss", 0), ("chunked loss", 8)):
        case = Case(name, f"{KERAS}:OutputLoss", {"vocabulary": vocabulary, "chunks": chunks}, values, call)
        rows += [
            Work(case, name, "layer", b, jit, implementation, tokens=float(batch * steps), at={"loss vocabulary": vocabulary})
            for b, jit in problems.modes(backends, jits)
        ]
    return rows


SUITES = {"quick": quick, "train": train, "decode": decode, "layers": layers, "startup": startup, "scaling": scaling}


def groups(name: str, backends: Mapping[str, Backend], jits: str = "matrix") -> list[list[Work]]:
    """The rows of a suite.

    Args:
        name: a key of `SUITES`. backends: {name: `k3seq.runtime.matrix.Backend`}. jits: as in `problems.modes`.

    Returns:
        A list of groups; a group is a list of `Work`.

    Raises:
        UsageError: an unknown name.
    """
    if name not in SUITES:
        raise UsageError(f"Expected a suite out of {', '.join(SUITES)}. Received: {name}")
    return [group for group in SUITES[name](backends, jits) if group]
