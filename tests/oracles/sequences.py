"""Which sequences are best, in float64 and from the definitions: brute force, a plain beam search, plain drawing.

A model is two functions of the tokens so far, a tuple without the start token: `logits(tokens) -> (v,)` for what comes next,
and `attention(tokens) -> (s,)` by which it was found. A hypothesis is a tuple that either has the end token as its last, or has
`max_steps` tokens and no end. Its length counts the end token.
"""

from collections.abc import Callable
from dataclasses import dataclass
from itertools import product

import numpy as np

from k3seq import random


@dataclass(frozen=True)
class Model:
    logits: Callable
    attention: Callable
    vocabulary: int
    end: int
    source_length: int  # positions of the attention that are no padding


@dataclass(frozen=True)
class Rules:
    """A hypothesis and the parts of its score."""

    length_power: float = 0.0
    coverage_weight: float = 0.0
    repetition: float = 1.0
    temperature: float = 1.0
    least: int = 0
    most: int = 10**6
    forbidden: tuple = ()
    ngram: int = 0
    prefix: tuple = ()


def log_softmax(logits):
    return logits - logits.max() - np.log(np.exp(logits - logits.max()).sum())


def token_log_probabilities(model, rules, tokens):
    """log p(next | tokens): repeated tokens made less likely, then the temperature; nothing is refused here."""
    logits = np.array(model.logits(tokens), np.float64)
    for token in set(tokens):
        logits[token] = logits[token] / rules.repetition if logits[token] > 0 else logits[token] * rules.repetition
    return log_softmax(logits / rules.temperature)


def admissible(model, rules, tokens):
    """Whether a hypothesis, or the beginning of one, keeps the rules."""
    words = [token for token in tokens if token != model.end]
    grams = [tokens[i : i + rules.ngram] for i in range(len(tokens) - rules.ngram + 1)] if rules.ngram else []
    return (
        all(token == asked for token, asked in zip(tokens, rules.prefix, strict=False) if asked >= 0)
        and not set(tokens) & set(rules.forbidden)
        and len(set(grams)) == len(grams)
        and len(words) <= rules.most
        and (model.end not in tokens or len(words) >= rules.least)
    )


def final_score(model, rules, tokens, log_probability):
    """GNMT's score (arXiv 1609.08144, equation 14) of a complete hypothesis; the end token counts as a token, once."""
    score = log_probability / ((5 + len(tokens)) / 6) ** rules.length_power
    if rules.coverage_weight:
        covered = sum(np.array(model.attention(tokens[:i]), np.float64) for i in range(len(tokens)))[: model.source_length]
        score += rules.coverage_weight * np.log(np.clip(covered, 1e-6, 1)).sum()
    return score


def brute_force(model, rules, max_steps, count):
    """The `count` best of all admissible hypotheses: [(tokens, score)], best first."""
    words = [token for token in range(model.vocabulary) if token != model.end]
    complete = [(*tokens, model.end) for n in range(max_steps) for tokens in product(words, repeat=n)]
    complete += product(words, repeat=max_steps)
    steps = {}
    scored = []
    for tokens in complete:
        if admissible(model, rules, tokens):
            total = 0.0
            for i, token in enumerate(tokens):
                if tokens[:i] not in steps:
                    steps[tokens[:i]] = token_log_probabilities(model, rules, tokens[:i])
                total += steps[tokens[:i]][token]
            scored.append((tokens, final_score(model, rules, tokens, total)))
    return sorted(scored, key=lambda pair: -pair[1])[:count]


def beam_search(model, rules, max_steps, width, count, groups=1, strength=0.0):
    """A beam search without shortcuts: all steps are taken. [(tokens, score)], best first.

    Of the `width / groups` best candidates of a group and step, those that end are complete; the best that do not end live on.
    A group is ranked with `strength` taken off for each of the candidates of earlier groups at this step that has the same
    token (Vijayakumar et al. 2016, arXiv 1610.02424); scores are without it.
    """
    size = width // groups
    live, complete = [[((), 0.0)] for _ in range(groups)], [[] for _ in range(groups)]
    for step in range(max_steps):
        used = np.zeros(model.vocabulary)
        for group in range(groups):
            candidates = []
            for tokens, total in live[group]:
                gained = token_log_probabilities(model, rules, tokens)
                for token in range(model.vocabulary):
                    if admissible(model, rules, (*tokens, token)):
                        rank = total + gained[token] - strength * used[token]
                        candidates.append((rank, (*tokens, token), total + gained[token]))
            candidates.sort(key=lambda candidate: -candidate[0])  # stable: the earlier beam, then the lower token
            for _, tokens, total in candidates[:size]:
                used[tokens[-1]] += 1
                if tokens[-1] == model.end or step == max_steps - 1:
                    complete[group].append((tokens, final_score(model, rules, tokens, total)))
            live[group] = [(tokens, total) for _, tokens, total in candidates if tokens[-1] != model.end][:size]
    # A group gives no more than its beams.
    kept = [pair for own in complete for pair in sorted(own, key=lambda pair: -pair[1])[: size if groups > 1 else count]]
    return sorted(kept, key=lambda pair: -pair[1])[:count]


def draw(model, rules, max_steps, seed, row, keep=None):
    """One sampled hypothesis: Gumbel's maximum with the noise of `k3seq.random` for this seed, step and row.

    Args:
        keep: from probabilities (v,) in float64 to the tokens that may be drawn, as a set; None: all.
    """
    words, tokens = random.key(seed, "k3seq.decode.sampling"), ()
    while len(tokens) < max_steps and tokens[-1:] != (model.end,):
        logs = token_log_probabilities(model, rules, tokens)
        noise = random.gumbel(random.fold(random.fold(words, len(tokens)), row), (model.vocabulary,))
        may = keep(np.exp(logs)) if keep else range(model.vocabulary)
        tokens += (max(sorted(may), key=lambda token: logs[token] + noise[token]),)
    return tokens


def top_k(count):
    """The tokens of the `count` largest probabilities."""
    return lambda probabilities: set(np.argsort(-probabilities, kind="stable")[:count].tolist())


def top_p(mass):
    """The fewest tokens, largest probabilities first, that reach `mass`."""

    def keep(probabilities):
        order = np.argsort(-probabilities, kind="stable")
        needed = int(np.searchsorted(np.cumsum(probabilities[order]), mass)) + 1
        return set(order[:needed].tolist())

    return keep


def min_p(share):
    """The tokens at least `share` as probable as the most probable one."""
    return lambda probabilities: set(np.flatnonzero(probabilities >= share * probabilities.max()).tolist())
