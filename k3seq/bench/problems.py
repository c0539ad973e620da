"""The problems of the suites: cases with batches that are drawn on the host. Imports no keras."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from k3seq.bench.work import Work, mode
from k3seq.errors import UsageError
from k3seq.parity.case import Case, Spec
from k3seq.random.bits import Stream
from k3seq.runtime.matrix import Backend
from k3seq.typing import NDArray, Nested

PEERS = "k3seq.bench.peers"
RATES = {"sgd": 0.1, "adam": 0.001}
NATIVE = {"jax": True, "torch": None}  # hand-written loops, and whether XLA compiles them; None: no such switch
# Sizes of the seed (000), of a vocabulary of subwords, and of the attention model that TFA was timed with.
SIZES = {
    "lstm-v500": dict(vocabulary=500, embed_dim=50, units=64, source=30, target=20),
    "lstm-v4000": dict(vocabulary=4000, embed_dim=256, units=256, source=40, target=40),
    "attention-v4000": dict(vocabulary=4000, embed_dim=256, units=256, source=40, target=40),
}


def seq2seq_batch(vocabulary: int, source: int, target: int, batch: int, padded: bool = False, seed: int = 0) -> dict[str, Any]:
    """A batch of token ids, {"inputs", "labels", "sample_weight"}; padded: lengths uniform in 1..source and 1..target.

    Without padding there are no `source_lengths`.
    """
    stream = Stream(seed, f"bench batch {vocabulary} {source} {target} {batch} {padded}")
    sources, targets = (stream.integers(4, vocabulary, (batch, steps)).astype("int32") for steps in (source, target + 1))
    inputs, weight = {"source": sources, "target": targets[:, :-1]}, np.ones((batch, target), "float32")
    labels = targets[:, 1:]
    if padded:
        ends = [stream.integers(1, steps + 1, (batch,)).astype("int32") for steps in (source, target)]
        real, weight = (np.arange(n) < end[:, None] for n, end in zip((source, target), ends, strict=True))
        weight = weight.astype("float32")
        inputs["source"] = np.where(real, sources, 0).astype("int32")
        inputs["target"], labels = (np.where(weight > 0, ids, 0).astype("int32") for ids in (inputs["target"], labels))
        inputs["source_lengths"] = ends[0]
    return {"inputs": inputs, "labels": labels, "sample_weight": weight}


def seq2seq(
    name: str,
    factory: str,
    arguments: dict[str, Any],
    sizes: Mapping[str, int],
    batch: int = 64,
    padded: bool = False,
    **more: Any,
) -> Case:
    """A seq2seq case on a batch of those sizes."""
    drawn = seq2seq_batch(sizes["vocabulary"], sizes["source"], sizes["target"], batch, padded)
    return Case(name, factory, arguments, drawn["inputs"], rates=RATES, batches=1, **{**drawn_rest(drawn), **more})


def drawn_rest(drawn: dict[str, Any]) -> dict[str, Any]:
    """The arguments of a case besides its inputs."""
    return {name: drawn[name] for name in ("labels", "sample_weight")}


JITS = ("matrix", "first", "jit", "no jit")


def modes(backends: Mapping[str, Backend], jits: str = "matrix") -> list[tuple[str, bool]]:
    """(backend, jit) pairs.

    Args:
        backends: {name: `k3seq.runtime.matrix.Backend`}. jits: "matrix": all modes that the matrix lists; "first": the
        first alone;
            "jit", "no jit": that one, where the matrix lists it.
    """
    found = []
    for name, backend in backends.items():
        listed = backend.jit[:1] if jits == "first" else backend.jit
        found += [(name, jit) for jit in listed if jits in ("matrix", "first", mode(jit))]
    return found


def lstm_training(
    name: str,
    backends: Mapping[str, Backend],
    jits: str,
    padded: Sequence[bool] = (False, True),
    batch: int = 64,
    native: bool = True,
) -> list[Work]:
    """The LSTM seq2seq's train step: k3seq, stock Keras (with a mask where rows are padded), and the native loops."""
    sizes, rows = SIZES[name], []
    sized = {key: sizes[key] for key in ("embed_dim", "units")}
    arguments = dict(source_vocabulary_size=sizes["vocabulary"], target_vocabulary_size=sizes["vocabulary"], **sized)
    for pads in padded:
        problem = f"{name} padded" if pads else name
        ours = seq2seq(problem, "k3seq.models.lstm:LSTMSeq2Seq", arguments, sizes, batch, pads)
        loss = {"loss": f"{PEERS}.stock:token_loss"}
        masked = {**arguments, "mask": pads}
        stock = seq2seq(problem, f"{PEERS}.stock:lstm_seq2seq", masked, sizes, batch, pads, **loss)
        tokens = float(ours.sample_weight.sum())
        pairs = modes(backends, jits)
        rows += [Work(ours, problem, "train", backend, jit, tokens=tokens) for backend, jit in pairs]
        rows += [Work(stock, problem, "train", backend, jit, "keras", tokens=tokens) for backend, jit in pairs]
        for backend, jit in NATIVE.items() if native else ():
            if backend in dict(pairs):
                rows.append(Work(ours, problem, "train", backend, jit, "plain", f"{PEERS}.{backend}_lstm:train", tokens))
    return rows


def attention_training(backends: Mapping[str, Backend], jits: str, batch: int = 64) -> list[Work]:
    """The attention LSTM's train step."""
    name, sizes = "attention-v4000", SIZES["attention-v4000"]
    arguments = dict(source_vocabulary_size=sizes["vocabulary"], target_vocabulary_size=sizes["vocabulary"])
    arguments |= {key: sizes[key] for key in ("embed_dim", "units")}
    case = seq2seq(name, "k3seq.models.lstm:AttentionSeq2Seq", arguments, sizes, batch)
    tokens = float(case.sample_weight.sum())
    return [Work(case, name, "train", backend, jit, tokens=tokens) for backend, jit in modes(backends, jits)]


def transformer_training(backends: Mapping[str, Backend], jits: str, batch: int = 32) -> list[Work]:
    """A Transformer's train step: 3 + 3 layers, 256 units, vocabulary 8000; and the same with KerasHub's layers."""
    sizes = dict(vocabulary=8000, source=20, target=40)
    case = seq2seq("transformer-v8000", "k3seq.models.transformer:TransformerSeq2Seq", TRANSFORMER, sizes, batch, padded=True)
    tokens = float(case.sample_weight.sum())
    rows = [Work(case, case.name, "train", backend, jit, tokens=tokens) for backend, jit in modes(backends, jits)]
    return rows + [replace(row, implementation="hub", maker=f"{PEERS}.hub:train") for row in rows]


TRANSFORMER = dict(
    source_vocabulary_size=8000,
    target_vocabulary_size=8000,
    embed_dim=256,
    dense_dim=1024,
    num_heads=4,
    num_layers=3,
    max_steps=64,
)
DECODED = {
    "attention-v4000": ("k3seq.models.lstm:AttentionSeq2Seq", 4000, 40, dict(embed_dim=256, units=256)),
    "lstm-v4000": ("k3seq.models.lstm:LSTMSeq2Seq", 4000, 40, dict(embed_dim=256, units=256)),
    "transformer-v8000": ("k3seq.models.transformer:TransformerSeq2Seq", 8000, 20, TRANSFORMER),
}


def decoding(name: str, beams: int, backends: Mapping[str, Backend], jits: str, batch: int = 32, steps: int = 40) -> list[Work]:
    """Decoding `steps` tokens, greedy or with beams. Only tokens up to the end of a row count."""
    factory, vocabulary, source, arguments = DECODED[name]
    arguments = dict(source_vocabulary_size=vocabulary, target_vocabulary_size=vocabulary) | arguments
    problem = f"{name} greedy" if beams == 1 else f"{name} beam {beams}"
    sizes = dict(vocabulary=vocabulary, source=source, target=steps)
    case = seq2seq(problem, factory, arguments, sizes, batch, decode={"max_steps": steps, "start": 1, "end": 2})
    options = {"beams": beams}
    rows = [Work(case, problem, "decode", backend, jit, options=options) for backend, jit in modes(backends, jits)]
    return rows + decoding_peers(rows, backends) if name.startswith("transformer") else rows


def decoding_peers(rows: list[Work], backends: Mapping[str, Backend]) -> list[Work]:
    """The same model in other packages: KerasHub on each backend, transformers and CTranslate2 next to PyTorch.

    KerasHub compiles its generation on JAX in every mode, so it has a row only for the first mode of a backend.
    CTranslate2 uses no backend. It is listed with PyTorch, as another way to serve a PyTorch model.
    """
    first, found = modes(backends, "first"), []
    found += [replace(r, implementation="hub", maker=f"{PEERS}.hub:decode") for r in rows if (r.backend, r.jit) in first]
    by_backend = {row.backend: replace(row, jit=None) for row in rows}
    if "torch" in by_backend:
        found.append(replace(by_backend["torch"], implementation="transformers", maker=f"{PEERS}.marian:decode"))
        found.append(replace(by_backend["torch"], implementation="ctranslate2", maker=f"{PEERS}.ctranslate:decode"))
    return found


def layer(
    name: str,
    factories: Mapping[str, str],
    arguments: dict[str, Any],
    backends: Mapping[str, Backend],
    jits: str,
    batch: int = 64,
    steps: int = 40,
    inputs: int = 256,
    padded: bool = False,
    native: bool = False,
) -> list[Work]:
    """A layer's call with its gradients, {implementation: factory}, over (batch, steps, inputs).

    padded: with lengths in 1..steps.
    """
    problem, rows = f"{name} padded" if padded else name, []
    call, tokens = {}, float(batch * steps)
    if padded:
        call = {"lengths": Stream(0, "bench lengths").integers(1, steps + 1, (batch,)).astype("int32")}
        tokens = float(call["lengths"].sum())
    values = Spec((batch, steps, inputs)).draw(Stream(0, "bench layer"))
    for implementation, factory in factories.items():
        case = Case(problem, factory, arguments, values, call)  # one name: the targets are drawn by it
        rows += [Work(case, problem, "layer", b, jit, implementation, tokens=tokens) for b, jit in modes(backends, jits)]
    if native and "torch" in {row.backend for row in rows}:
        rows.append(Work(rows[0].case, problem, "layer", "torch", None, "plain", f"{PEERS}.torch_lstm:layer", tokens))
    return rows


def own(case: Case, kind: str, backends: Mapping[str, Backend], jits: str) -> list[Work]:
    """The rows of a user's case. Its tokens are the weights that are not 0, or the positions of the labels or of the first
    input."""
    batch = case.batch(0)
    counted = batch["sample_weight"]
    leaves = [leaf for part in ("labels", "inputs", "call") for leaf in arrays(batch[part])]
    if counted is not None:
        tokens = float(sum((leaf > 0).sum() for leaf in arrays(counted)))
    elif leaves:
        tokens = float(np.prod(leaves[0].shape[:2]))
    else:
        raise UsageError(f"Expected inputs of {case.name}. Received: none")
    return [Work(case, case.name, kind, b, jit, "own", tokens=tokens) for b, jit in modes(backends, jits)]


def arrays(value: Nested) -> list[NDArray[Any]]:
    """The arrays of a nested structure, in order."""
    if isinstance(value, np.ndarray):
        return [value]
    values = value.values() if isinstance(value, dict) else value if isinstance(value, list | tuple) else ()
    return [leaf for part in values for leaf in arrays(part)]


def resized(case: Case, batch: int | None) -> Case:
    """The case with `batch` as the first size of every array that is a spec; as it is for None.

    Raises:
        UsageError: the case holds an array of values, whose size is fixed.
    """
    if batch is None:
        return case

    def to(value):
        if isinstance(value, Spec) and value.shape:
            return replace(value, shape=(batch, *value.shape[1:]))
        if isinstance(value, np.ndarray):
            raise UsageError(
                f"Expected inputs of {case.name} as specs for --batch-size. Received: an array of shape {value.shape}"
            )
        if isinstance(value, dict):
            return {k: to(v) for k, v in value.items()}
        return [to(v) for v in value] if isinstance(value, list | tuple) else value

    return replace(case, **{part: to(getattr(case, part)) for part in ("inputs", "call", "labels", "sample_weight")})
