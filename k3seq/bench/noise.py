"""Changes between two runs that exceed the noise.

A shared machine can be 1.4 times slower in one run than in the next, for every row. So a row is compared relative to its
reference
rows, which were measured in the same rounds: the peers of its problem, whose code does not change with k3seq; without peers the
median of at least three rows; otherwise the clock. The noise of a row is the range of its rounds relative to the reference
rows, from the fastest to the slowest. A row changed if the ranges of the two runs do not overlap and it moved by more than
`floor`: 5 %,
or twice what peers moved by relative to each other. With 5 rounds each, ranges are apart by chance in 2 of 252 orders of
the rounds
(Mann & Whitney 1947). Rounds of one run are closer to each other than runs are, which is what `floor` is for. `shift` is
what all rows moved by together: the machine, or code that they share.
"""

import math
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from k3seq.bench.work import OURS
from k3seq.errors import DataError

FLOOR = 0.05  # difference between two runs on an idle machine


@dataclass(frozen=True)
class Change:
    """One row in two runs.

    Args:
        key: key of the row. verdict: faster, slower, same, new or gone. old, new: medians in seconds. ratio: the new over
            the old.
        relative: the ratio relative to the reference rows, which leaves out the machine; None where the clock is the
            reference. old_spread, new_spread: fastest and slowest round in seconds.
    """

    key: str
    verdict: str
    old: float | None = None
    new: float | None = None
    ratio: float | None = None
    relative: float | None = None
    old_spread: tuple[float, float] | None = None
    new_spread: tuple[float, float] | None = None


def compare(old: Sequence[Mapping[str, Any]], new: Sequence[Mapping[str, Any]], floor: float = FLOOR) -> list[Change]:
    """The `Change`s from `Report.to_json()["rows"]` of an older run to those of a newer one, in the order of the newer.

    Raises:
        DataError: rows without the names that a bench writes.
    """
    try:
        before = {row["key"]: row for row in old if row["median"] is not None}
        after = {row["key"]: row for row in new if row["median"] is not None}
        both = [row for key, row in after.items() if key in before]
        references = {row["key"]: _references(row, both) for row in both}
        level = {key: statistics.median(map(math.log, before[key]["rounds"])) for key in references}
        moved = {key: [_moves(run, level, key, keys) for run in (before, after)] for key, keys in references.items()}
        others = [
            abs(_move(*moved[row["key"]])) for row in both if row["implementation"] not in OURS and references[row["key"]]
        ]
        if others:  # twice the standard deviation, by way of the median deviation
            floor = max(floor, math.expm1(2 * 1.4826 * statistics.median(others)))
        changes = []
        for key, row in after.items():
            if key not in before:
                changes.append(Change(key, "new", None, row["median"], new_spread=tuple(row["spread"])))
            else:
                changes.append(_change(before[key], row, moved[key], bool(references[key]), floor))
        return changes + [Change(key, "gone", row["median"]) for key, row in before.items() if key not in after]
    except (KeyError, TypeError) as error:
        raise DataError(f"Expected the JSON of k3seq bench. Received: a row without {error}") from None


def _references(row, rows):
    """Keys of the reference rows of a row; an empty list means the clock."""
    problem = [one for one in rows if one["problem"] == row["problem"]]
    peers = [one["key"] for one in problem if one["implementation"] not in OURS and one is not row]
    if peers or row["implementation"] not in OURS:
        return peers
    # One of three rows may change without moving the median; of two rows it is not known which one changed.
    return [one["key"] for one in problem] if len(problem) > 2 else []


def _moves(run, level, key, references):
    """For each round: log ratio to the older level of the row, minus the median of that over the reference rows."""

    def over(one):
        return [math.log(time) - level[one] for time in run[one]["rounds"]]

    if not references:
        return over(key)
    return [own - statistics.median(turn) for own, *turn in zip(over(key), *map(over, references), strict=False)]


def _move(before, after):
    return statistics.median(after) - statistics.median(before)


def _change(old, new, moves, has_references, floor):
    before, after = moves
    relative, apart = math.exp(_move(before, after)), min(after) > max(before) or max(after) < min(before)
    verdict = "same" if not apart or max(relative, 1 / relative) - 1 <= floor else "slower" if relative > 1 else "faster"
    ratio = new["median"] / old["median"]
    return Change(
        new["key"],
        verdict,
        old["median"],
        new["median"],
        ratio,
        relative if has_references else None,
        *(tuple(run["spread"]) for run in (old, new)),
    )


def shift(changes: Sequence[Change]) -> float | None:
    """The median of all ratios, or None where no row is in both runs: what all rows moved by together."""
    ratios = [math.log(change.ratio) for change in changes if change.ratio]
    return math.exp(statistics.median(ratios)) if ratios else None
