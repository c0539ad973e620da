"""Decoding in one call. Compiled decoders are cached per model and options, for as long as the model lives."""

import weakref
from collections.abc import Iterator, Sequence
from typing import Any

from k3seq.decode.beam import BeamSearch
from k3seq.decode.decoder import Decoded, Greedy
from k3seq.decode.requests import as_inputs
from k3seq.decode.sampling import Sample
from k3seq.errors import UsageError
from k3seq.typing import NDArray, StepModel

KEPT = 16  # decoders of one model; the least recently used is dropped first

_decoders = weakref.WeakKeyDictionary()


def beam_search(
    model: Any,
    source: Any,
    beam_width: int | str = 5,
    *,
    max_steps: int | None = None,
    processors: Sequence[Any] = (),
    n_best: int | None = None,
    prefix: Any = None,
    start: int = 1,
    end: int = 2,
    jit: bool | None = None,
) -> Decoded:
    """Beam search: the results with the highest scores.

    Args:
        model: a trained model with `start` and `step`, such as those of `k3seq.models`, or an `Ensemble`.
        source: {"source": (b, s), "source_lengths": (b,)}, or (b, s) alone where nothing is padded.
        max_steps: longest result; None: twice the source's steps and 10 more, within what the model takes.
        prefix: what results begin with, ids for all rows or for each; see `Greedy`.
        beam_width, n_best, processors, start, end, jit: as in `BeamSearch`.

    Returns:
        `Decoded` with k = n_best, best first.

    Raises:
        UsageError: as in `BeamSearch` and its call.

    Example:
        decoded = beam_search(model, source, 5, processors=[LengthPenalty(0.6), NoRepeat(3)])
    """
    options = dict(processors=tuple(processors), beam_width=beam_width, n_best=n_best)
    return _decoder(BeamSearch, model, source, max_steps, start, end, jit, options)(source, prefix)


def greedy(
    model: Any,
    source: Any,
    *,
    max_steps: int | None = None,
    processors: Sequence[Any] = (),
    prefix: Any = None,
    start: int = 1,
    end: int = 2,
    jit: bool | None = None,
) -> Decoded:
    """The most probable token at each step. Arguments as in `beam_search`; returns `Decoded` without the axis of hypotheses."""
    return _decoder(Greedy, model, source, max_steps, start, end, jit, dict(processors=tuple(processors)))(source, prefix)


def sample(
    model: Any,
    source: Any,
    seed: int = 0,
    *,
    samples: int = 1,
    max_steps: int | None = None,
    processors: Sequence[Any] = (),
    prefix: Any = None,
    start: int = 1,
    end: int = 2,
    jit: bool | None = None,
) -> Decoded:
    """Drawn results: the same for the same seed on every backend.

    Args:
        seed: an integer of at least 0. samples: results for each row. The others: as in `beam_search`.

    Returns:
        `Decoded` with k = samples, in the order they were drawn.

    Example:
        decoded = sample(model, source, seed=1, samples=3, processors=[Temperature(0.8), TopP(0.9)])
    """
    options = dict(processors=tuple(processors), samples=samples)
    return _decoder(Sample, model, source, max_steps, start, end, jit, options)(source, seed, prefix)


def stream(
    model: Any,
    source: Any,
    seed: int | None = None,
    *,
    max_steps: int | None = None,
    processors: Sequence[Any] = (),
    prefix: Any = None,
    start: int = 1,
    end: int = 2,
    jit: bool | None = None,
) -> Iterator[NDArray[Any]]:
    """A generator of each step's tokens (b,) int32, as soon as they are known; it stops when every row has ended.

    Args:
        seed: None takes the most probable token; an integer draws. The others: as in `beam_search`.

    Example:
        for tokens in stream(model, source):
            print(tokenizer.decode(tokens[:1].tolist()), end=" ", flush=True)
    """
    kind, seeded = (Greedy, {}) if seed is None else (Sample, {"seed": seed})
    decoder = _decoder(kind, model, source, max_steps, start, end, jit, dict(processors=tuple(processors)))
    return decoder.stream(source, prefix=prefix, **seeded)


def _decoder(kind, model, source, max_steps, start, end, jit, options):
    """The decoder of these options: kept from the last call, or new."""
    if max_steps is None:
        steps = as_inputs(source)["source"].shape[1]
        max_steps = min(2 * steps + 10, getattr(model, "target_limit", None) or 2 * steps + 10)
    # A model whose variables were replaced, by a rebuilt layer, needs another program.
    options_key = (kind, max_steps, start, end, jit, *options.values(), *map(id, model.variables))
    try:
        kept = _decoders.setdefault(model, {})
        decoder = kept.pop(options_key, None)
    except TypeError:  # a model that cannot be referred to weakly, or an option that cannot be a key
        return kind(model, max_steps, start, end, jit, **options)
    if decoder is None:
        # A weak reference: the model holds its decoders, and a cycle would keep both in memory.
        decoder = kind(weakref.proxy(model), max_steps, start, end, jit, **options)
    kept[options_key] = decoder
    while len(kept) > KEPT:
        del kept[next(iter(kept))]
    return decoder


def compilations(model: StepModel) -> int:
    """How often these functions have compiled something for a model; 0 on a backend that runs eagerly.

    Raises:
        UsageError: the model cannot be referred to weakly, so that nothing is kept for it.
    """
    try:
        return sum(decoder.compilations() for decoder in _decoders.get(model, {}).values())
    except TypeError:
        raise UsageError(f"Expected a model that weak references can be made to. Received: {type(model).__name__}") from None
