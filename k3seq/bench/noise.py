"""What changed between two runs beyond the noise.

A machine that others share is 1.4 times slower in one run than in the next, and every row with it. So a row is held against
the rows beside it, which took their turns in the same rounds: the competitors of its problem, whose code is not ours, or where
there are none the middle of at least three rows, or else the clock. Its noise is what its rounds show then: the range from its
fastest to its slowest round. It changed where the ranges of the two runs do not overlap and it moved by more than `floor`: 5 %,
or twice what competitors moved by against each other, though nobody changed them. With 5 rounds each, ranges that lie apart
come by chance in 2 of 252 orders of the rounds (Mann & Whitney 1947); but rounds of one run are nearer to each other than runs
are, for which `floor` stands. What all rows moved by together is the machine, or what they share: `shift`.
"""

import math
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from k3seq.bench.work import OURS
from k3seq.errors import DataError

FLOOR = 0.05  # what rows of two runs on an idle machine differ by


@dataclass(frozen=True)
class Change:
    """One row in two runs.

    Args:
        key: of the row. verdict: faster, slower, same, new or gone. old, new: medians in seconds. ratio: the new over the old.
        relative: the same beside the rows that it is held against: what it changed by if the machine is left out; None where
            that is the clock. old_spread, new_spread: fastest and slowest round in seconds.
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
        beside = {row["key"]: _beside(row, both) for row in both}
        level = {key: statistics.median(map(math.log, before[key]["rounds"])) for key in beside}
        moved = {key: [_moves(run, level, key, keys) for run in (before, after)] for key, keys in beside.items()}
        others = [abs(_move(*moved[row["key"]])) for row in both if row["implementation"] not in OURS and beside[row["key"]]]
        if others:  # twice the standard deviation, by way of the median deviation
            floor = max(floor, math.expm1(2 * 1.4826 * statistics.median(others)))
        changes = []
        for key, row in after.items():
            if key not in before:
                changes.append(Change(key, "new", None, row["median"], new_spread=tuple(row["spread"])))
            else:
                changes.append(_change(before[key], row, *moved[key], bool(beside[key]), floor))
        return changes + [Change(key, "gone", row["median"]) for key, row in before.items() if key not in after]
    except (KeyError, TypeError) as error:
        raise DataError(f"Expected the JSON of k3seq bench. Received: a row without {error}") from None


def _beside(row, rows):
    """Keys of the rows that a row is held against; none: the clock."""
    problem = [one for one in rows if one["problem"] == row["problem"]]
    competitors = [one["key"] for one in problem if one["implementation"] not in OURS and one is not row]
    if competitors or row["implementation"] not in OURS:
        return competitors
    # Of three rows one may change and leave the middle where it is; of two nobody knows which one did.
    return [one["key"] for one in problem] if len(problem) > 2 else []


def _moves(run, level, key, beside):
    """Of a row's rounds: how far each lies over the row's older level, less the middle of that in the rows beside it."""

    def over(one):
        return [math.log(time) - level[one] for time in run[one]["rounds"]]

    if not beside:
        return over(key)
    return [own - statistics.median(turn) for own, *turn in zip(over(key), *map(over, beside), strict=False)]


def _move(before, after):
    return statistics.median(after) - statistics.median(before)


def _change(old, new, before, after, beside, floor):
    relative, apart = math.exp(_move(before, after)), min(after) > max(before) or max(after) < min(before)
    verdict = "same" if not apart or max(relative, 1 / relative) - 1 <= floor else "slower" if relative > 1 else "faster"
    spreads = tuple(old["spread"]), tuple(new["spread"])
    ratio = new["median"] / old["median"]
    return Change(new["key"], verdict, old["median"], new["median"], ratio, relative if beside else None, *spreads)


def shift(changes: Sequence[Change]) -> float | None:
    """The geometric middle of all ratios, or None where no row is in both runs: what all rows moved by together."""
    ratios = [math.log(change.ratio) for change in changes if change.ratio]
    return math.exp(statistics.median(ratios)) if ratios else None
