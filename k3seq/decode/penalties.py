"""Penalties turn the log-probability of a complete hypothesis into the score that ranks it.

A penalty has two functions. `score` is applied once, when a hypothesis is complete. `bound` is the best score that a live
hypothesis can still get; beam search stops by it. Lengths count the end token: `|Y|` of the papers.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np
from keras import ops

from k3seq import arguments
from k3seq.errors import UsageError
from k3seq.typing import Tensor

UNSEEN = 1e-6


class Penalty:
    """A subclass defines `score` and `bound`, both monotone in the score they are given, which is 0 or less.

    Attributes:
        needs_coverage: whether `score` looks at the coverage.
    """

    needs_coverage = False

    def score(
        self, scores: Tensor, lengths: Tensor, coverage: Tensor | None, source_mask: Tensor | None, max_steps: int
    ) -> Tensor:
        """Scores after the penalty, shaped like `scores`.

        Args:
            scores: (b, k) float32. lengths: () or (b, k) int32, 1 to max_steps.
            coverage: (b, k, s) float32, attention to each source position summed over the steps; None where it is not needed.
            source_mask: (b, 1, s) bool, the positions that are no padding, or None.
        """
        raise NotImplementedError

    def bound(self, scores: Tensor, length: Any, max_steps: int) -> Tensor:
        """The best final scores of live hypotheses with scores (...) and `length` tokens so far."""
        raise NotImplementedError


@dataclass(frozen=True)
class LengthPenalty(Penalty):
    """Divides by `((5 + |Y|) / 6) ** power` (GNMT, Wu et al. 2016, arXiv 1609.08144, equation 14).

    The length is that of the complete hypothesis, the end token counted once. A power above 0 favours long results, below 0
    short.

    Raises:
        UsageError: power is not finite, or (when decoding begins) too large for float32 at this length.
    """

    power: float

    def __post_init__(self):
        arguments.finite(power=self.power)

    def score(
        self, scores: Tensor, lengths: Tensor, coverage: Tensor | None, source_mask: Tensor | None, max_steps: int
    ) -> Tensor:
        return scores / self._divisor(lengths, max_steps)

    def bound(self, scores: Tensor, length: Any, max_steps: int) -> Tensor:
        # Scores are at most 0 and only fall: the largest divisor still possible is the best case.
        return scores / self._divisor(max_steps if self.power > 0 else ops.minimum(length + 1, max_steps), max_steps)

    def _divisor(self, length, max_steps):
        with np.errstate(over="ignore"):
            table = (((5.0 + np.arange(max_steps + 1)) / 6.0) ** self.power).astype("float32")
        if not (np.isfinite(table) & (table >= np.finfo("float32").tiny)).all():
            raise UsageError(f"Expected a length power that float32 holds at {max_steps} steps. Received: power={self.power}")
        return ops.take(ops.convert_to_tensor(table), length, axis=0)


@dataclass(frozen=True)
class CoveragePenalty(Penalty):
    """Adds `weight * sum(log(min(coverage, 1)))` over the source positions (GNMT, equation 14).

    Coverage is the attention to a position summed over all steps, that of the end token among them, and never taken below
    1e-6; padding is left out. The state of the model must carry `alignments`.

    Raises:
        UsageError: weight is negative or not finite.
    """

    weight: float
    needs_coverage = True

    def __post_init__(self):
        arguments.real(0, float("inf"), below=True, weight=self.weight)

    def score(
        self, scores: Tensor, lengths: Tensor, coverage: Tensor | None, source_mask: Tensor | None, max_steps: int
    ) -> Tensor:
        logs = ops.log(ops.clip(coverage, UNSEEN, 1.0))
        if source_mask is not None:
            logs = ops.where(source_mask, logs, 0.0)
        return scores + self.weight * ops.sum(logs, axis=-1)

    def bound(self, scores: Tensor, length: Any, max_steps: int) -> Tensor:
        return scores
