"""Beam search in float64, one hypothesis at a time, with the rules of tensorflow-addons 0.23 (`golden/README.md`).

A model is a function `advance(token, state) -> (logits (vocabulary,), state, alignments (s,) or None)` of one hypothesis.

Particular to those rules: beams 1..W-1 start finished at -inf; a finished beam gives log-probability 0 to the end token
and the dtype's lowest number to the others; candidates are ranked by score, of equals the lowest `beam * vocabulary + token`
first; the length of a candidate leaves out an end token in the step that takes it, and counts it in all later steps; coverage
is taken only from beams that were finished before the step. The search continues until all beams of all rows have ended.
"""

from dataclasses import dataclass, replace
from itertools import product
from typing import Any

import numpy as np

LOWEST = np.finfo(np.float64).min


@dataclass(frozen=True)
class Hypothesis:
    """One beam: its tokens, the sum of their log-probabilities, and the state of the model and of the penalties for it."""

    tokens: tuple[int, ...]
    log_probability: float
    finished: bool
    length: int
    state: Any
    coverage: np.ndarray | None
    history: tuple = ()


@dataclass(frozen=True)
class Found:
    """`hypotheses[row][beam]` after the last step; and what each step gave: `scores, tokens, parents (t, b, k)`, all candidate
    scores `(t, b, k, v)`."""

    hypotheses: list[list[Hypothesis]]
    scores: np.ndarray
    tokens: np.ndarray
    parents: np.ndarray
    all_scores: np.ndarray


def log_softmax(logits) -> np.ndarray:
    logits = np.asarray(logits, np.float64)
    shifted = logits - logits.max()
    return shifted - np.log(np.exp(shifted).sum())


def length_penalty(length: int, weight: float) -> float:
    """GNMT's (arXiv 1609.08144, equation 14) without its constant: ((5 + length) / 6) ** weight."""
    return ((5.0 + length) / 6.0) ** weight


def coverage_penalty(coverage: np.ndarray, weight: float) -> float:
    """weight * sum(log(min(coverage, 1))); a position that never saw any attention, exactly 0, counts as 1."""
    return weight * sum(np.log(min(c, 1.0)) for c in coverage if c != 0.0)


def _candidates(hypothesis, log_probabilities, end, length_weight, coverage_weight):
    """(score, total log-probability) of each token after a hypothesis."""
    for token, log_probability in enumerate(log_probabilities):
        if hypothesis.finished:
            log_probability = 0.0 if token == end else LOWEST
        with np.errstate(over="ignore"):
            total = hypothesis.log_probability + log_probability
        length = hypothesis.length + (not hypothesis.finished and token != end)
        score = total / length_penalty(length, length_weight)
        if coverage_weight and hypothesis.finished:
            score += coverage_penalty(hypothesis.coverage, coverage_weight)
        yield score, total


def _step(advance, beams, last, end, width, length_weight, coverage_weight):
    """One step of one row: (new beams, scores, tokens, parents, all scores)."""
    ranked, grown = [], []
    for parent, (hypothesis, token) in enumerate(zip(beams, last, strict=True)):
        logits, state, alignments = advance(token, hypothesis.state)
        coverage = hypothesis.coverage
        if coverage is not None and not hypothesis.finished:
            coverage = coverage + alignments
        grown.append(replace(hypothesis, state=state, coverage=coverage, history=(*hypothesis.history, alignments)))
        found = _candidates(grown[-1], log_softmax(logits), end, length_weight, coverage_weight)
        ranked += [(score, total, parent, token) for token, (score, total) in enumerate(found)]
    best = sorted(range(len(ranked)), key=lambda i: (-ranked[i][0], i))[:width]
    chosen = []
    for _, total, parent, token in (ranked[i] for i in best):
        before = grown[parent]
        chosen.append(
            replace(
                before,
                tokens=before.tokens if before.finished else (*before.tokens, token),
                log_probability=total,
                finished=before.finished or token == end,
                length=before.length + (not before.finished),
            )
        )
    scores, _, parents, tokens = zip(*(ranked[i] for i in best), strict=True)
    return chosen, scores, tokens, parents, np.array([score for score, *_ in ranked]).reshape(len(beams), -1)


def beam_search(
    advance, states, start_tokens, end, width, steps, length_weight=0.0, coverage_weight=0.0, coverage=None
) -> Found:
    """Searches all rows in step.

    `states` and `start_tokens` have one entry per row; `coverage` is (b, s), the attention before the first step (with a
    coverage weight). A hypothesis' `history` holds the alignments along its own path, one per step that was run.
    """
    rows, record = [], []
    for row, state in enumerate(states):
        seen = None if coverage is None else np.asarray(coverage[row], np.float64)
        alive = Hypothesis((), 0.0, False, 0, state, seen)
        rows.append([alive] + [replace(alive, log_probability=-np.inf, finished=True)] * (width - 1))
    last = [[token] * width for token in start_tokens]
    for _ in range(steps):
        found = [
            _step(advance, beams, tokens, end, width, length_weight, coverage_weight)
            for beams, tokens in zip(rows, last, strict=True)
        ]
        rows, last = [f[0] for f in found], [f[2] for f in found]
        record.append([f[1:] for f in found])
        if all(beam.finished for beams in rows for beam in beams):
            break
    scores, tokens, parents, all_scores = (np.array([[row[i] for row in step] for step in record]) for i in range(4))
    return Found(rows, scores, tokens, parents, all_scores)


def all_sequences(advance, state, start, end, steps, vocabulary, length_weight=0.0, coverage_weight=0.0, coverage=None):
    """Every sequence that ends with `end` within `steps` tokens or has `steps` tokens, without any search.

    Returns:
        A list of (score, tokens, log-probability), best first; the score is the one of the last step.
    """
    found = []
    others = [token for token in range(vocabulary) if token != end]
    endings = [(size, (end,)) for size in range(steps)] + [(steps, ())]
    for size, ending in endings:
        for body in product(others, repeat=size):
            tokens, log_probability, now, last = (*body, *ending), 0.0, state, start
            seen = None if coverage is None else np.asarray(coverage, np.float64)
            for token in tokens:
                logits, now, alignments = advance(last, now)
                log_probability += log_softmax(logits)[token]
                seen = None if seen is None else seen + alignments
                last = token
            ended_before = bool(ending) and len(tokens) < steps
            length = len(tokens) - (bool(ending) and not ended_before)
            score = log_probability / length_penalty(length, length_weight)
            if coverage_weight and ended_before:
                score += coverage_penalty(seen, coverage_weight)
            found.append((score, tokens, log_probability))
    return sorted(found, key=lambda entry: -entry[0])


def gather_tree(tokens, parents, lengths, end):
    """Reads each beam back from its last step: (t, b, k) arrays, `lengths` (b,). After the first end token, all are `end`."""
    tokens, parents = np.asarray(tokens), np.asarray(parents)
    steps, batch, beams = tokens.shape
    result = np.full_like(tokens, end)
    for row in range(batch):
        for beam in range(beams):
            at, path = beam, []
            for step in reversed(range(min(steps, lengths[row]))):
                path.insert(0, tokens[step, row, at])
                at = parents[step, row, at]
            if end in path:
                path = path[: path.index(end)]
            result[: len(path), row, beam] = path
    return result


def gather_tree_from_array(values, parents, lengths):
    """Orders `values` (t, b, k, ...) along the beams; `lengths` (b, k): from its length on, a beam keeps its own entries."""
    values, parents = np.asarray(values), np.asarray(parents)
    result = values.copy()
    for row in range(parents.shape[1]):
        for beam in range(parents.shape[2]):
            at = beam
            for step in reversed(range(min(parents.shape[0], max(lengths[row])))):
                if step < lengths[row][beam]:
                    result[step, row, beam] = values[step, row, at]
                at = parents[step, row, at]
    return result
