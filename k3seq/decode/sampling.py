"""Sampling: the strategy that draws tokens, and the processors that shape the distribution.

The draws come from `k3seq.random`: the same seed gives the same tokens on every backend.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from keras import ops

from k3seq import arguments, random
from k3seq.decode.decoder import Stepwise
from k3seq.decode.processors import Constraint, Context
from k3seq.decode.ranking import first_best
from k3seq.errors import UsageError
from k3seq.typing import NDArray, Tensor

COLDEST = 1e-6


class Sample(Stepwise):
    """Draws each token from the model's distribution after the processors.

    A draw depends on the seed, the row, the sample and the step, not on the other rows of the batch.

    Args:
        model, max_steps, start, end, jit, processors: as in `Greedy`.
        samples: results for each row.

    Raises:
        UsageError: as in `Greedy`; samples is below 1.

    Example:
        draw = Sample(model, max_steps=20, processors=[Temperature(0.8), TopP(0.9)])
        decoded = draw(source, seed=1)
    """

    def __init__(
        self,
        model: Any,
        max_steps: int,
        start: int = 1,
        end: int = 2,
        jit: bool | None = None,
        *,
        processors: Sequence[Any] = (),
        samples: int = 1,
    ):
        super().__init__(model, max_steps, start, end, jit, processors=processors)
        arguments.positive(samples=samples)
        self.hypotheses = int(samples)

    def __call__(self, source: Any, seed: int = 0, prefix: Any = None) -> Any:
        """Decodes a batch. Returns `Decoded` with k = samples; scores are the log-probabilities of what was drawn.

        Args:
            source, prefix: as in `Greedy`. seed: an integer of at least 0, which is an argument of the compiled program.
        """
        return self._decode(source, prefix, key=random.key(seed, "k3seq.decode.sampling"))

    def stream(self, source: Any, seed: int = 0, prefix: Any = None) -> Iterator[NDArray[Any]]:
        """A generator of the tokens (b * samples,) int32 of each step, as soon as they are drawn; as `Greedy.stream`."""
        return self._stream(source, prefix, key=random.key(seed, "k3seq.decode.sampling"))

    def _choose(self, scores, step, extras):
        rows = ops.arange(scores.shape[0], dtype="int32")
        return random.categorical(random.fold(random.fold(extras["key"], step), rows), scores)


@dataclass(frozen=True)
class Temperature:
    """Divides the logits. Below 1 the distribution becomes sharper, above 1 flatter.

    Raises:
        UsageError: temperature is below 1e-6, where the division could overflow, or not finite.
    """

    temperature: float

    def __post_init__(self):
        check_temperature("temperature", self.temperature)

    def __call__(self, logits: Tensor, context: Context) -> Any:
        return logits / self.temperature


@dataclass(frozen=True)
class TopK(Constraint):
    """Refuses all but the `count` most probable tokens; of equals the lower ids stay (Fan et al. 2018, arXiv 1805.04833).

    Raises:
        UsageError: count is below 1.
    """

    count: int

    def __post_init__(self):
        arguments.positive(count=self.count)

    def allowed(self, logits: Tensor, context: Context) -> Tensor:
        count = min(int(self.count), logits.shape[-1])
        return _down_to(logits, first_best(logits, count)[0][:, -1:], count)


@dataclass(frozen=True)
class TopP(Constraint):
    """Refuses all but the fewest, most probable tokens that reach `mass` together (Holtzman et al. 2020, arXiv 1904.09751).

    Raises:
        UsageError: mass is not in (0, 1].
    """

    mass: float

    def __post_init__(self):
        arguments.real(0, 1, above=True, mass=self.mass)

    def allowed(self, logits: Tensor, context: Context) -> Tensor:
        if self.mass == 1:
            return logits == logits
        # Only the values are sorted: sorting indices along with them costs several times as much.
        ranked = -ops.sort(-logits, axis=-1)
        probabilities = _shares(ranked)
        before = ops.cumsum(probabilities, axis=-1) - probabilities
        # At least one token: in float32 a small mass is 0.
        count = ops.maximum(ops.sum(ops.cast(before < self.mass, "int32"), axis=-1, keepdims=True), 1)
        return _down_to(logits, ops.take_along_axis(ranked, count - 1, axis=-1), count)


@dataclass(frozen=True)
class MinP(Constraint):
    """Refuses tokens less probable than `share` of the most probable one (Nguyen et al. 2024, arXiv 2407.01082).

    Raises:
        UsageError: share is not in (0, 1].
    """

    share: float

    def __post_init__(self):
        arguments.real(0, 1, above=True, share=self.share)

    def allowed(self, logits: Tensor, context: Context) -> Tensor:
        return logits >= ops.max(logits, axis=-1, keepdims=True) + float(np.log(self.share))


def check_temperature(name: str, value: float) -> None:
    """Refuses a temperature that is not finite, or so small that dividing logits by it could overflow.

    Raises:
        UsageError: value is not in 1e-6..largest finite number.
    """
    arguments.finite(**{name: value})
    if value < COLDEST * (1 - 1e-6):  # float32 rounds 1e-6 down
        raise UsageError(
            f"Expected {name} of at least {COLDEST} (greedy decoding has no temperature). Received: {name}={value}"
        )


def _down_to(logits, last, count):
    """True for the `count` largest of logits (n, v), of which `last` (n, 1) is the smallest; of equals the lower ids."""
    above, equal = logits > last, logits == last
    places = count - ops.sum(ops.cast(above, "int32"), axis=-1, keepdims=True)
    return ops.logical_or(above, ops.logical_and(equal, ops.cumsum(ops.cast(equal, "int32"), axis=-1) <= places))


def _shares(logits):
    """Softmax over the last axis; zeros, not NaN, where every logit is -inf."""
    largest = ops.maximum(ops.max(logits, axis=-1, keepdims=True), -3e38)
    powers = ops.exp(logits - largest)
    return ops.divide_no_nan(powers, ops.sum(powers, axis=-1, keepdims=True))
