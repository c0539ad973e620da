"""How well token sequences match their references: exactly, token by token, and by edit distance.

A hypothesis is a sequence of tokens (a list of int or str, or a str for characters). Its references are a list of such
sequences: several stand for as many right answers, and the one with the lowest error (edits per reference token; of equal ones
the first) is what the hypothesis is measured against.
"""

from k3seq.errors import UsageError, require_extra


def token_accuracy(hypotheses, references):
    """Positions that hold the reference's token, over all positions of the longer of both, in all pairs.

    Missing and surplus tokens count as wrong; a token that is shifted by one is wrong (see `error_rate`).

    Args:
        hypotheses: list of token sequences.
        references: for each of them a list of one or more token sequences.

    Returns:
        float in [0, 1]; 1 where there is no position at all.

    Raises:
        UsageError: there are none, their numbers differ, or a hypothesis has no reference.
    """
    return score(hypotheses, references)["token_accuracy"]


def sequence_accuracy(hypotheses, references):
    """The share of hypotheses that equal one of their references. Arguments and errors are those of `token_accuracy`."""
    return score(hypotheses, references)["sequence_accuracy"]


def error_rate(hypotheses, references):
    """Levenshtein edits (insert, delete, replace) of all pairs, over the tokens of all references measured against.

    The phoneme or word error rate. Above 1 where hypotheses are much longer. Arguments and errors are those of
    `token_accuracy`; UsageError too where the references hold no token and the hypotheses do.
    """
    rate = score(hypotheses, references)["error_rate"]
    if rate is None:
        raise UsageError("Expected at least one reference token. Received: empty references alone")
    return rate


def score(hypotheses, references):
    """All measures at once.

    Args:
        hypotheses: list of token sequences.
        references: for each of them a list of one or more token sequences.

    Returns:
        dict of token_accuracy, sequence_accuracy, error_rate (None where the references hold no token and the hypotheses do),
        and the counts behind them: sequences, correct_sequences, tokens (of the references measured against), edits,
        positions, correct_positions.

    Raises:
        UsageError: there are none, their numbers differ, or a hypothesis has no reference.
    """
    if len(hypotheses) != len(references) or not len(hypotheses):
        received = f"{len(hypotheses)} and {len(references)}"
        raise UsageError(f"Expected hypotheses and references in equal number, at least one. Received: {received}")
    counts = dict.fromkeys(("sequences", "correct_sequences", "tokens", "edits", "positions", "correct_positions"), 0)
    for row, (hypothesis, choices) in enumerate(zip(hypotheses, references, strict=True)):
        if isinstance(choices, str) or not len(choices):
            raise UsageError(f"Expected a list of at least one reference. Received: {choices!r} at row {row}")
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


def nearest(hypothesis, references):
    """(edits, reference) of the reference with the fewest edits per token, of equal ones the first."""
    measured = [(edit_distance(hypothesis, reference), reference) for reference in references]
    return min(measured, key=lambda pair: pair[0] / max(1, len(pair[1])))


def edit_distance(first, second):
    """The Levenshtein distance of two token sequences (Levenshtein 1966), int."""
    with require_extra("metrics"):
        from rapidfuzz.distance import Levenshtein

    # rapidfuzz compares hashes, and Python's are equal for -1 and -2 and, there, for "a" and 97: number the tokens first.
    numbers = {}
    rows = [[numbers.setdefault(token, len(numbers)) for token in row] for row in (first, second)]
    return Levenshtein.distance(*rows)
