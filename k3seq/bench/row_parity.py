"""Compares each row with the others: by its first losses, and by the parity suite. Imports no keras."""

import statistics
from collections.abc import Callable, Sequence
from typing import Any

from k3seq.bench.work import Row
from k3seq.parity import suite
from k3seq.parity.case import from_payload
from k3seq.parity.pool import Pool
from k3seq.parity.verdicts import FAILING
from k3seq.runtime.matrix import Matrix

CHECKS = ("parameters", "forward", "gradients")


def by_losses(rows: Sequence[Row], matrix: Matrix) -> None:
    """Compares the first losses of the rows of each problem and sets `parity` and `parity_note` of each row.

    The losses are those of three train steps under Adam, or of one call, from the same weights on the same batch. Peers without
    Keras are included. Each row is compared with the median of all, with the tolerance `adam_losses` of the matrix file.
    """
    problems = {}
    for row in rows:
        if row.losses:
            problems.setdefault((row.work.problem, len(row.losses)), []).append(row)
    for (problem, _), own in problems.items():
        if len(own) < 2:
            continue
        allowed = matrix.tolerance("adam_losses", case=problem)
        middle = [statistics.median(values) for values in zip(*(row.losses for row in own), strict=True)]
        for row in own:
            error = max(abs(a - b) / max(abs(b), 1e-30) for a, b in zip(row.losses, middle, strict=True))
            row.parity = "equal" if error <= allowed else "differs"
            row.parity_note = (
                f"losses within {error:.1e} of {len(own)} rows" if error <= allowed else f"losses differ by {error:.1e}"
            )


def by_parity(
    rows: Sequence[Row], backends: Sequence[str], pool: Pool | None = None, on_row: Callable[[Any], None] | None = None
) -> None:
    """Runs the parity suite on the cases of the Keras rows and sets `parity` and `parity_note` of each row.

    Args:
        rows: `Row`s. backends: names. pool: a `k3seq.parity.Pool`, or None. on_row: as in `k3seq.parity.run_parity`.
    """
    cases = {_name(row): row.work.case for row in rows if row.work.maker is None and row.status == "measured"}
    if not cases or len(backends) < 2:
        return
    report = suite.run_parity(
        [_only(name, case) for name, case in cases.items()], backends, CHECKS, on_row, pool=pool, judge=False
    )
    for row in rows:
        if row.work.maker is None:
            own = [r for r in report.rows if r.case == _name(row) and (row.work.backend in r.pair or not r.pair)]
            _set_parity(row, own)


def _name(row):
    return f"{row.work.problem} ({row.work.implementation})"


def _only(name, case):
    """The case with `CHECKS` only; the benchmark itself runs decoding and training."""
    return from_payload({**case.to_payload(), "name": name, "checks": list(CHECKS), "decode": None})


def _set_parity(row, found):
    bad = [r for r in found if r.verdict in FAILING]
    if bad:
        details = [f"{r.check} {' and '.join(r.pair)} {r.relative if r.relative is None else f'{r.relative:.1e}'}" for r in bad]
        row.parity, row.parity_note = "differs", "; ".join([*([row.parity_note] if row.parity_note else []), *details])
    elif any(r.verdict == "equal" for r in found):
        row.parity = row.parity or "equal"
        passed = ", ".join(dict.fromkeys(r.check for r in found if r.verdict == "equal"))
        row.parity_note = "; ".join([*([row.parity_note] if row.parity_note else []), f"{passed} pass"])
