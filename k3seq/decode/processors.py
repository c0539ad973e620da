"""Processors change a model's logits before a token is chosen: objects `(logits, context) -> logits` in a list.

A list may hold two kinds in any order:

- one that reshapes the distribution, such as `Temperature`: its result is normalised again;
- a `Constraint`, which refuses tokens: the others keep the model's probability, so that scores with and without it compare.

Any function `(logits, context) -> logits` is of the first kind. Ids and lengths count the tokens of the result, without the
start token and with the end token as the last.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

from keras import ops

from k3seq import arguments
from k3seq.errors import UsageError
from k3seq.typing import Tensor

LOWEST = float("-inf")


class Context(NamedTuple):
    """The decoding so far, for a processor. `n` is the number of hypotheses: rows times beams.

    tokens: (n, max_steps) int32, the tokens so far, filled up with the end token.
    step: () int32, the number of tokens so far.
    end: the end token.
    """

    tokens: Any
    step: Any
    end: int


class Constraint:
    """Refuses tokens. A subclass defines `allowed`; `check(vocabulary)` may refuse its own arguments."""

    def allowed(self, logits: Tensor, context: Context) -> Tensor:
        """bool (n, v), or what broadcasts to it, for logits (n, v) in which refused tokens are -inf already."""
        raise NotImplementedError

    def __call__(self, logits: Tensor, context: Context) -> Any:
        return ops.where(self.allowed(logits, context), logits, LOWEST)


def log_probabilities(logits: Tensor, processors: Sequence[Any], context: Context, forced: Tensor | None = None) -> Tensor:
    """Log-probabilities of the next token after the processors: (n, v) float32, -inf for refused tokens.

    Args:
        logits: (n, v) float. processors: called in order. context: `Context`.
        forced: (n,) int32, the only token allowed, whatever else is refused; -1 leaves the choice. None: none is forced.
    """
    allowed = whole = ops.cast(logits, "float32")
    for processor in processors:
        refuses = isinstance(processor, Constraint)
        both = allowed is whole and not refuses
        allowed = processor(allowed, context)
        whole = allowed if both else whole if refuses else processor(whole, context)
    if forced is not None:
        ids = ops.arange(logits.shape[-1], dtype="int32")[None, :]
        only = ops.where(ids == forced[:, None], whole, LOWEST)
        allowed = ops.where(forced[:, None] < 0, allowed, only)
    return allowed - ops.logsumexp(whole, axis=-1, keepdims=True)


def occurrences(ids: Any, counted: Tensor, vocabulary: int) -> Tensor:
    """How often each id occurs in a row: ids (n, t) int32 and counted (n, t) bool -> (n, vocabulary) int32."""
    rows = ids.shape[0]
    places = ids + ops.arange(rows, dtype="int32")[:, None] * vocabulary
    ones = ops.reshape(ops.cast(counted, "int32"), (-1,))
    return ops.reshape(ops.segment_sum(ones, ops.reshape(places, (-1,)), rows * vocabulary), (rows, vocabulary))


@dataclass(frozen=True)
class RepetitionPenalty:
    """Divides the positive logits of tokens that the result already has by `penalty`, and multiplies the negative ones.

    Keskar et al. 2019 (arXiv 1909.05858), who divide negative logits too.

    Raises:
        UsageError: penalty is not in 1e-6..1e6.
    """

    penalty: float

    def __post_init__(self):
        arguments.real(1e-6, 1e6, penalty=self.penalty)

    def __call__(self, logits: Tensor, context: Context) -> Any:
        so_far = ops.arange(context.tokens.shape[1], dtype="int32")[None, :] < context.step
        seen = occurrences(context.tokens, ops.logical_and(so_far, ops.ones_like(context.tokens) > 0), logits.shape[-1]) > 0
        penalised = ops.where(logits > 0, logits / self.penalty, logits * self.penalty)
        return ops.where(seen, penalised, logits)


@dataclass(frozen=True)
class MinLength(Constraint):
    """Refuses the end token before there are `length` tokens, the end token not counted.

    Raises:
        UsageError: length is negative.
    """

    length: int

    def __post_init__(self):
        arguments.integer(0, length=self.length)

    def allowed(self, logits: Tensor, context: Context) -> Tensor:
        return ops.logical_or(_ids(logits) != context.end, context.step >= self.length)


@dataclass(frozen=True)
class MaxLength(Constraint):
    """Refuses all but the end token after `length` tokens: unlike `max_steps`, which cuts, it makes a result end in time.

    Raises:
        UsageError: length is negative.
    """

    length: int

    def __post_init__(self):
        arguments.integer(0, length=self.length)

    def allowed(self, logits: Tensor, context: Context) -> Tensor:
        return ops.logical_or(_ids(logits) == context.end, context.step < self.length)


@dataclass(frozen=True)
class Forbid(Constraint):
    """Refuses tokens everywhere.

    Args:
        tokens: ids.

    Raises:
        UsageError: an id is no integer of at least 0, or (when decoding begins) outside the vocabulary.
    """

    tokens: tuple

    def __init__(self, tokens: Iterable[int]):
        known = isinstance(tokens, Iterable) and not isinstance(tokens, str | bytes | Mapping)
        found = tuple(tokens) if known else ()
        if not known or any(isinstance(token, bool) or not hasattr(token, "__index__") or token < 0 for token in found):
            raise UsageError(f"Expected tokens to be integers of at least 0. Received: tokens={tokens!r}")
        object.__setattr__(self, "tokens", tuple(int(token) for token in found))

    def check(self, vocabulary: int) -> None:
        """Refuses ids that a vocabulary of so many does not have."""
        outside = [token for token in self.tokens if token >= vocabulary]
        if outside:
            raise UsageError(f"Expected forbidden tokens in a vocabulary of {vocabulary}. Received: {outside[0]}")

    def allowed(self, logits: Tensor, context: Context) -> Tensor:
        allowed = _ids(logits) >= 0
        for token in self.tokens:
            allowed = ops.logical_and(allowed, _ids(logits) != token)
        return allowed


@dataclass(frozen=True)
class NoRepeat(Constraint):
    """Refuses a token that would repeat `size` tokens in a row of the result (Paulus et al. 2017, arXiv 1705.04304).

    Raises:
        UsageError: size is below 1.
    """

    size: int

    def __post_init__(self):
        arguments.positive(size=self.size)

    def allowed(self, logits: Tensor, context: Context) -> Tensor:
        tokens, steps, before = context.tokens, context.tokens.shape[1], self.size - 1
        if steps < self.size:
            return _ids(logits) >= 0
        positions = ops.arange(steps, dtype="int32")[None, :]
        starts = steps - before  # number of n-grams that fit
        repeats = ops.logical_and(positions[:, :starts] + before < context.step, tokens[:, :starts] >= 0)
        for offset in range(before):
            # The token `before - offset` steps back. In the first steps there is none, and nothing repeats.
            last = ops.sum(ops.where(positions == context.step - before + offset, tokens, 0), axis=1, keepdims=True)
            repeats = ops.logical_and(repeats, tokens[:, offset : offset + starts] == last)
        return occurrences(tokens[:, before:], repeats, logits.shape[-1]) == 0


def _ids(logits):
    return ops.arange(logits.shape[-1], dtype="int32")[None, :]
