"""What changed between two runs beyond the noise.

A row's noise is what its own rounds show: the range from its fastest to its slowest round. A row changed where the ranges of
the two runs do not overlap and the medians are further apart than `floor`. With 5 rounds each, ranges that lie apart come by
chance in 2 of 252 orders of the rounds (Mann & Whitney 1947); but rounds of one run are nearer to each other than runs are, for
which `floor` stands. Where all rows moved together it is likely the machine: `shift` says by how much.
"""

import math
import statistics
from dataclasses import dataclass

from k3seq.errors import DataError

FLOOR = 0.05  # of the older median: what medians of two runs on an idle machine differ by


@dataclass(frozen=True)
class Change:
    """One row in two runs. verdict: faster, slower, same, new or gone; ratio: the new median over the old; times in seconds."""

    key: str
    verdict: str
    old: float | None = None
    new: float | None = None
    ratio: float | None = None
    old_spread: tuple[float, float] | None = None
    new_spread: tuple[float, float] | None = None


def compare(old, new, floor=FLOOR):
    """The `Change`s from `Report.to_json()["rows"]` of an older run to those of a newer one, in the order of the newer.

    Raises:
        DataError: rows without the names that a bench writes.
    """
    try:
        before = {row["key"]: row for row in old if row["median"] is not None}
        after = {row["key"]: row for row in new if row["median"] is not None}
        changes = [_change(key, before.get(key), row, floor) for key, row in after.items()]
        return changes + [Change(key, "gone", row["median"]) for key, row in before.items() if key not in after]
    except (KeyError, TypeError) as error:
        raise DataError(f"Expected the JSON of k3seq bench. Received: a row without {error}") from None


def _change(key, old, new, floor):
    if old is None:
        return Change(key, "new", None, new["median"], None, None, tuple(new["spread"]))
    ratio = new["median"] / old["median"]
    (old_low, old_high), (new_low, new_high) = old["spread"], new["spread"]
    apart = new_low > old_high or new_high < old_low
    verdict = "same" if not apart or abs(ratio - 1) <= floor else "slower" if ratio > 1 else "faster"
    return Change(key, verdict, old["median"], new["median"], ratio, (old_low, old_high), (new_low, new_high))


def shift(changes):
    """The geometric middle of all ratios, or None where no row is in both runs: what all rows moved by together."""
    ratios = [math.log(change.ratio) for change in changes if change.ratio]
    return math.exp(statistics.median(ratios)) if ratios else None
