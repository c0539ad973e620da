"""Beam search with separate lists of live beams and complete hypotheses.

At each step the candidates are all live beams with all tokens, ranked by log-probability. A candidate among the `beam_width`
best that ends is complete. It is scored once, with penalties, and kept if it is among the best complete ones so far. The best
`beam_width` candidates that do not end stay alive; after the last step they are complete too. The search of a row ends when the
penalties' bounds show that no live beam can beat the worst hypothesis kept. Of equal candidates the earlier beam wins, then the
lower token; of equal hypotheses the one that was complete first.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from keras import ops, tree

from k3seq import arguments
from k3seq.decode.decoder import Decoder, alignments_of, count_before
from k3seq.decode.penalties import Penalty
from k3seq.decode.processors import LOWEST, Context, log_probabilities, occurrences
from k3seq.decode.ranking import first_best
from k3seq.errors import UsageError

ALL = "all"
MOST = 100_000  # beams of an exhaustive search


@dataclass(frozen=True)
class DiverseGroups:
    """Searches in groups of beams. A later group ranks the tokens lower that earlier groups choose at the same step.

    Vijayakumar et al. 2016 (arXiv 1610.02424), Hamming diversity: a candidate ranks lower by `strength` for each time that an
    earlier group chose its token. The scores do not change.

    Args:
        groups: number of groups, a divisor of beam_width. strength: at least 0.

    Raises:
        UsageError: groups is below 1 or strength negative.
    """

    groups: int
    strength: float = 0.5

    def __post_init__(self):
        arguments.positive(groups=self.groups)
        arguments.real(0, float("inf"), below=True, strength=self.strength)


class BeamSearch(Decoder):
    """Searches for the `n_best` results of the highest score.

    Args:
        model, max_steps, start, end, jit: as in `Greedy`.
        processors: those of `k3seq.decode.processors`, penalties (`LengthPenalty`, `CoveragePenalty`), which score complete
            hypotheses in their order, and at most one `DiverseGroups`.
        beam_width: number of live beams, at most the vocabulary size; "all" searches every hypothesis, for small vocabularies
            and few steps.
        n_best: hypotheses returned, at most beam_width; None: beam_width, or 5 with "all".

    Raises:
        UsageError: an argument is out of range (beam_width above the vocabulary size: at the call), or the state of the
            model has no alignments for a coverage penalty.

    Example:
        search = BeamSearch(model, max_steps=20, beam_width=5, processors=[LengthPenalty(0.6), NoRepeat(3)])
        decoded = search({"source": source, "source_lengths": lengths})
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
        beam_width: int | str = 5,
        n_best: int | None = None,
    ):
        groups = [p for p in processors if isinstance(p, DiverseGroups)]
        self.penalties = [p for p in processors if isinstance(p, Penalty)]
        rest = [p for p in processors if not isinstance(p, (DiverseGroups, Penalty))]
        super().__init__(model, max_steps, start, end, jit, processors=rest)
        self.exhaustive = isinstance(beam_width, str) and beam_width == ALL
        if not self.exhaustive and (
            isinstance(beam_width, bool) or not isinstance(beam_width, (int, np.integer)) or beam_width < 1
        ):
            raise UsageError(f"Expected beam_width of at least 1, or {ALL!r}. Received: beam_width={beam_width!r}")
        if len(groups) > 1 or (groups and (self.exhaustive or beam_width % groups[0].groups)):
            raise UsageError(
                f"Expected one DiverseGroups, whose groups divide beam_width. Received: {groups}, beam_width={beam_width}"
            )
        most = MOST if self.exhaustive else int(beam_width)
        if n_best is None:
            n_best = min(5, most) if self.exhaustive else most
        if isinstance(n_best, bool) or not isinstance(n_best, (int, np.integer)) or not 1 <= n_best <= most:
            raise UsageError(f"Expected n_best in 1..{most}. Received: n_best={n_best!r}")
        self.beam_width, self.n_best = (0 if self.exhaustive else int(beam_width)), int(n_best)  # 0: not known yet
        self.diversity = groups[0] if groups else DiverseGroups(1, 0.0)
        self.covers = any(penalty.needs_coverage for penalty in self.penalties)

    def __call__(self, source: Any, prefix: Any = None) -> Any:
        """Decodes a batch. Returns `Decoded` with k = n_best, best first.

        Args and errors as in `Greedy`.
        """
        return self._decode(source, prefix)

    def _check_vocabulary(self, vocabulary):
        super()._check_vocabulary(vocabulary)
        if not self.exhaustive and self.beam_width > vocabulary:
            raise UsageError(
                f"Expected beam_width of at most the vocabulary of {vocabulary}. Received: beam_width={self.beam_width}"
            )

    def _search(self, inputs, extras):
        carry = self._begin(inputs)
        source_mask = self._source_mask(inputs, carry["coverage"]) if self.covers else None

        def open_rows(carry):
            best = self._bound(ops.max(carry["scores"], axis=1), carry["index"])
            return ops.logical_and(carry["index"] < self.max_steps, ops.any(best > carry["kept_scores"][:, -1]))

        def advance(carry):
            return (self._advance(carry, source_mask, extras),)

        (carry,) = ops.while_loop(open_rows, advance, (carry,))
        return self._results(carry)

    def _begin(self, inputs):
        """The loop's first carry. `r` is rows times groups, `w` the beams and `m` the kept hypotheses of a group."""
        rows, groups, steps = inputs["source"].shape[0], self.diversity.groups, self.max_steps
        beam_width = self._exhaustive_width(inputs) if self.exhaustive else self.beam_width
        r, w = rows * groups, beam_width // groups
        m = min(self.n_best, w) if groups > 1 else self.n_best
        state = self._begin_state(inputs, beam_width)
        first = np.where(np.arange(w) == 0, 0.0, LOWEST).astype("float32")
        carry = {
            "index": ops.zeros((), "int32"),
            "token": ops.full((r * w,), self.start, dtype="int32"),
            "tokens": ops.full((r, w, steps), self.end, dtype="int32"),
            "scores": ops.convert_to_tensor(np.tile(first, (r, 1))),
            "kept_scores": ops.full((r, m), LOWEST, dtype="float32"),
            "kept_tokens": ops.full((r, m, steps), self.end, dtype="int32"),
            "state": state,
        }
        aligned = alignments_of(state)
        if aligned is not None:
            carry |= {
                "alignments": ops.zeros((r * w, steps, aligned.shape[1]), aligned.dtype),
                "path": ops.zeros((r, w, steps), "int32"),
                "kept_path": ops.zeros((r, m, steps), "int32"),
            }
        if self.covers:
            if aligned is None:
                raise UsageError(
                    "Expected a model whose state carries alignments, for a coverage penalty. Received: one without"
                )
            carry["coverage"] = ops.zeros((r, w, aligned.shape[1]), "float32")
        return carry

    def _exhaustive_width(self, inputs):
        """The number of sequences without an end before the last step."""
        # Only a shape of this step is used, so a compiler drops it.
        state = self._begin_state(inputs, 1)
        token = ops.full((inputs["source"].shape[0],), self.start, dtype="int32")
        vocabulary = self._model_step(token, state)[0].shape[1]
        beam_width = (vocabulary - 1) ** (self.max_steps - 1)
        if beam_width > MOST:
            raise UsageError(
                f"Expected at most {MOST} hypotheses for beam_width={ALL!r}. Received: {beam_width} of {self.max_steps} steps"
            )
        return max(beam_width, 1)

    def _advance(self, carry, source_mask, extras):
        index, (r, w) = carry["index"], carry["scores"].shape
        logits, state = self._model_step(carry["token"], carry["state"])
        vocabulary, context = logits.shape[1], Context(ops.reshape(carry["tokens"], (r * w, -1)), index, self.end)
        forced = self._forced(extras, index, self.diversity.groups * w)
        gained = log_probabilities(logits, self.processors, context, forced)
        totals = carry["scores"][..., None] + ops.reshape(gained, (r, w, vocabulary))
        totals, chosen = self._best_candidates(totals)
        beams, tokens = chosen // vocabulary, chosen % vocabulary
        beams, tokens = ops.cast(beams, "int32"), ops.cast(tokens, "int32")
        places = beams + ops.arange(r, dtype="int32")[:, None] * w  # of the candidates' beams among r * w
        here = ops.arange(self.max_steps, dtype="int32") == index
        histories = {"tokens": ops.where(here, tokens[..., None], _rows(carry["tokens"], places))}
        coverage = None
        after = {"index": index + 1}
        aligned = alignments_of(state)
        if aligned is not None:
            after["alignments"] = ops.where(here[None, :, None], aligned[:, None, :], carry["alignments"])
            histories["path"] = ops.where(here, beams[..., None], _rows(carry["path"], places))
        if aligned is not None and self.covers:
            covered = carry["coverage"] + ops.cast(ops.reshape(aligned, (r, w, -1)), "float32")
            coverage = _rows(covered, places)

        ends = tokens == self.end
        ranks = ops.arange(tokens.shape[1], dtype="int32")[None, :]
        complete = ops.logical_or(ends, index + 1 == self.max_steps)
        if not self.exhaustive:
            complete = ops.logical_and(complete, ranks < w)
        finals = ops.where(complete, self._score(totals, index + 1, coverage, source_mask), LOWEST)
        after |= _keep(carry, finals, histories)

        # The first that do not end, by rank: with diversity the order of ranks is not that of the scores.
        live = ops.argsort(ranks + ops.where(ends, tokens.shape[1], 0), axis=1)[:, :w]
        after["scores"] = ops.take_along_axis(ops.where(ends, LOWEST, totals), live, axis=1)
        after["token"] = ops.reshape(ops.take_along_axis(tokens, live, axis=1), (-1,))
        own = ops.cast(live, "int32") + ops.arange(r, dtype="int32")[:, None] * tokens.shape[1]
        after |= {name: _rows(history, own) for name, history in histories.items()}
        if self.covers:
            after["coverage"] = _rows(coverage, own)
        from_beams = ops.reshape(ops.take_along_axis(places, live, axis=1), (-1,))
        after["state"] = tree.map_structure(
            lambda new, old: old if new is old else ops.take(new, from_beams, axis=0), state, carry["state"]
        )
        return after

    def _best_candidates(self, totals):
        """The candidates that matter, best rank first: totals (r, w, v) -> (theirs (r, c), places in w * v (r, c))."""
        r, w, vocabulary = totals.shape
        # At most one candidate of each beam ends, so among twice as many as beams there are enough that do not.
        count = w * vocabulary if self.exhaustive else min(2 * w, w * vocabulary)
        groups = self.diversity.groups
        if groups == 1:
            return first_best(ops.reshape(totals, (r, w * vocabulary)), count)
        totals = ops.reshape(totals, (-1, groups, w, vocabulary))
        used, chosen = ops.zeros_like(totals[:, 0, 0]), []
        for group in range(groups):
            ranked = ops.reshape(totals[:, group] - self.diversity.strength * used[:, None, :], (-1, w * vocabulary))
            scores, places = first_best(ranked, count)
            chosen.append(places)
            tokens = ops.cast(places[:, :w] % vocabulary, "int32")
            used = used + ops.cast(occurrences(tokens, scores[:, :w] > LOWEST, vocabulary), used.dtype)
        chosen = ops.reshape(ops.stack(chosen, axis=1), (r, count))
        return ops.take_along_axis(ops.reshape(totals, (r, w * vocabulary)), chosen, axis=1), chosen

    def _source_mask(self, inputs, coverage):
        if inputs.get("source_lengths") is None:
            return None
        lengths = ops.repeat(ops.cast(inputs["source_lengths"], "int32"), self.diversity.groups, axis=0)
        return (ops.arange(coverage.shape[2], dtype="int32") < lengths[:, None])[:, None, :]

    def _score(self, totals, length, coverage, source_mask):
        for penalty in self.penalties:
            totals = penalty.score(totals, length, coverage, source_mask, self.max_steps)
        return totals

    def _bound(self, scores, length):
        for penalty in self.penalties:
            scores = penalty.bound(scores, length, self.max_steps)
        return scores

    def _results(self, carry):
        groups, n = self.diversity.groups, self.n_best
        r, m = carry["kept_scores"].shape
        kept, steps = groups * m, self.max_steps
        rows = r // groups
        scores, order = first_best(ops.reshape(carry["kept_scores"], (rows, kept)), n)
        places = order + ops.arange(rows, dtype="int32")[:, None] * kept
        tokens = ops.take(ops.reshape(carry["kept_tokens"], (rows * kept, steps)), places, axis=0)
        lengths = count_before(tokens, self.end)
        if "alignments" not in carry:
            return tokens, lengths, scores, None
        w = carry["scores"].shape[1]
        path = ops.take(ops.reshape(carry["kept_path"], (rows * kept, steps)), places, axis=0)
        group = places // m  # of each hypothesis among all r
        time = ops.arange(steps, dtype="int32")
        flat = ops.reshape(carry["alignments"], (r * w * steps, -1))
        aligned = ops.take(flat, ((group * w)[..., None] + path) * steps + time, axis=0)
        inside = ops.logical_and(time <= lengths[..., None], scores[..., None] > LOWEST)
        return tokens, lengths, scores, ops.where(inside[..., None], aligned, ops.zeros_like(aligned))


def _keep(carry, finals, histories):
    """The best of the kept hypotheses and the candidates, by final score (r, c); the kept come first among equals."""
    r, m = carry["kept_scores"].shape
    scores, order = first_best(ops.concatenate([carry["kept_scores"], finals], axis=1), m)
    places = order + ops.arange(r, dtype="int32")[:, None] * (m + finals.shape[1])
    kept = {
        f"kept_{name}": _rows(ops.concatenate([carry[f"kept_{name}"], history], axis=1), places)
        for name, history in histories.items()
    }
    return {"kept_scores": scores, **kept}


def _rows(values, places):
    """The rows of values (r, c, ...) at places, counted through r * c."""
    return ops.take(ops.reshape(values, (math.prod(values.shape[:2]), *values.shape[2:])), places, axis=0)
