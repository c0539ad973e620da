"""Exact match, token accuracy and edit distance of token sequences.

A hypothesis is a sequence of tokens: a list of int, a list of str, or a str whose tokens are its characters. Its references are
a list of such sequences, one for each correct answer. The hypothesis is compared with the reference of the lowest error, which
is edits per reference token; of equal ones it is the first.
"""

from collections.abc import Sequence
from typing import Any, TypeAlias

import numpy as np

from k3seq.errors import UsageError, require_extra
from k3seq.typing import NDArray

_FORMS = "token sequences to be lists of int, lists of str, or str"
Tokens: TypeAlias = Sequence[int] | Sequence[str] | NDArray[Any]


def token_accuracy(hypotheses: Sequence[Tokens], references: Sequence[Sequence[Tokens]]) -> float:
    """The share of positions that hold the reference's token, of all positions of the longer sequence in all pairs.

    Missing and surplus tokens count as wrong. A token that is shifted by one is wrong (see `error_rate`).

    Args:
        hypotheses: list of token sequences.
        references: for each of them a list of one or more token sequences.

    Returns:
        float in [0, 1]; 1 where there is no position at all.

    Raises:
        UsageError: there are none, their numbers differ, a hypothesis has no reference, or one of them has another form.
    """
    return score(hypotheses, references)["token_accuracy"]


def sequence_accuracy(hypotheses: Sequence[Tokens], references: Sequence[Sequence[Tokens]]) -> float:
    """The share of hypotheses that equal one of their references. Arguments and errors are those of `token_accuracy`."""
    return score(hypotheses, references)["sequence_accuracy"]


def error_rate(hypotheses: Sequence[Tokens], references: Sequence[Sequence[Tokens]]) -> float:
    """Levenshtein edits (insert, delete, replace) of all pairs per reference token: the phoneme or word error rate.

    It is above 1 where hypotheses are much longer. Arguments and errors are those of `token_accuracy`; UsageError too where the
    references hold no token and the hypotheses do.
    """
    rate = score(hypotheses, references)["error_rate"]
    if rate is None:
        raise UsageError("Expected at least one reference token. Received: only empty references")
    return rate


def score(hypotheses: Sequence[Tokens], references: Sequence[Sequence[Tokens]]) -> dict[str, Any]:
    """All measures at once.

    Args:
        hypotheses: list of token sequences.
        references: for each of them a list of one or more token sequences.

    Returns:
        dict of token_accuracy, sequence_accuracy, error_rate (None where the references hold no token and the hypotheses do),
        and their counts: sequences, correct_sequences, tokens (of the references compared with), edits, positions,
        correct_positions.

    Raises:
        UsageError: there are none, their numbers differ, a hypothesis has no reference, or one of them has another form.
    """
    for name, values in (("hypotheses", hypotheses), ("references", references)):
        if not _is_list(values):
            raise UsageError(f"Expected {name} to be a list. Received: {values!r:.40} of type {type(values).__name__}")
    if len(hypotheses) != len(references) or not len(hypotheses):
        received = f"{len(hypotheses)} and {len(references)}"
        raise UsageError(f"Expected hypotheses and references in equal number, at least one. Received: {received}")
    counts = dict.fromkeys(("sequences", "correct_sequences", "tokens", "edits", "positions", "correct_positions"), 0)
    for row, (hypothesis, choices) in enumerate(zip(hypotheses, references, strict=True)):
        if not _is_list(choices) or not len(choices):
            raise UsageError(f"Expected a list of at least one reference. Received: {choices!r:.40} at row {row}")
        _check_alike(hypothesis, choices, row)
        edits, reference = nearest(hypothesis, choices)
        counts["sequences"] += 1
        counts["correct_sequences"] += edits == 0
        counts["tokens"] += len(reference)
        counts["edits"] += edits
        counts["positions"] += max(len(hypothesis), len(reference))
        counts["correct_positions"] += sum(a == b for a, b in zip(hypothesis, reference, strict=False))
    counts = {name: int(count) for name, count in counts.items()}
    tokens, edits = counts["tokens"], counts["edits"]
    return {
        "token_accuracy": counts["correct_positions"] / counts["positions"] if counts["positions"] else 1.0,
        "sequence_accuracy": counts["correct_sequences"] / counts["sequences"],
        "error_rate": edits / tokens if tokens else 0.0 if not edits else None,
        **counts,
    }


def nearest(hypothesis: Tokens, references: Sequence[Tokens]) -> tuple[int, Tokens]:
    """(edits, reference) of the reference with the fewest edits per token; the first of equal ones."""
    measured = [(edit_distance(hypothesis, reference), reference) for reference in references]
    return min(measured, key=lambda pair: pair[0] / max(1, len(pair[1])))


def edit_distance(first: Tokens, second: Tokens) -> int:
    """The Levenshtein distance of two token sequences (Levenshtein 1966). Raises UsageError where one has another form."""
    with require_extra("metrics"):
        from rapidfuzz.distance import Levenshtein

    for tokens in (first, second):
        if _form(tokens)[0] is None:
            raise UsageError(f"Expected {_FORMS}. Received: {tokens!r:.40}")
    # rapidfuzz compares hashes, which are equal for -1 and -2, and for "a" and 97: number the tokens first.
    numbers = {}
    rows = [[numbers.setdefault(token, len(numbers)) for token in row] for row in (first, second)]
    return Levenshtein.distance(*rows)


def _is_list(values):
    return isinstance(values, (Sequence, np.ndarray)) and not isinstance(values, (str, bytes, bytearray))


def _form(tokens):
    """(what a token sequence is, "str" and "int" as far as its tokens are); (None, ...) for anything else."""
    if isinstance(tokens, str):
        return "a str", set()
    if not _is_list(tokens):
        return None, set()
    types = {*map(type, tokens)}
    kinds = {"str" if issubclass(kind, str) else "int" for kind in types}
    return ("a list" if all(issubclass(kind, (str, int, np.integer)) for kind in types) else None), kinds


def _check_alike(hypothesis, references, row):
    """Refuses what would count as wrong only because it has another form, such as references without a list around them."""
    form, kinds = _form(hypothesis)
    for tokens in (hypothesis, *references):
        found, its_kinds = _form(tokens)
        if found is None:
            expected = _FORMS
        elif found != form:
            expected = f"a list of references that are {form} each, like the hypothesis"
        elif kinds and its_kinds and kinds.isdisjoint(its_kinds):
            expected = f"references of {' and '.join(sorted(kinds))}, like the hypothesis"
        else:
            continue
        raise UsageError(f"Expected {expected}. Received: {tokens!r:.40} at row {row}")
