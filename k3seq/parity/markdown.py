"""Parity results as a Markdown table."""

import math
from collections.abc import Iterable, Mapping, Sequence

from k3seq.parity.rows import Row
from k3seq.parity.verdicts import CHECKS, COMPARED, PASSING
from k3seq.report.markdown import markdown_table
from k3seq.typing import Json


def parity_markdown(results: Iterable[Mapping[str, Json]], causes: Mapping[str, str] | None = None) -> str:
    """A line for every case: the largest relative error of any pair for each check, and a verdict.

    Args:
        results: the "result" of files that `k3seq parity --json` wrote; a case of a later one replaces the same case of an
            earlier one.
        causes: case -> Markdown of why it differs.

    Returns:
        The backends' versions, the table, and a line of counts. Differences are bold; "not finite" stands for NaN, infinities,
        other shapes and other paths; "-" for nothing to compare.
    """
    by_case: dict[str, list[Row]] = {}
    backends = {}
    for result in results:
        backends |= {name: version for name, version in result["backends"].items() if version}
        latest: dict[str, list[Row]] = {}
        for row in map(Row.from_json, result["rows"]):
            if row.case:
                latest.setdefault(row.label, []).append(row)
        by_case |= latest
    compared = [row for rows in by_case.values() for row in rows if row.verdict in COMPARED]
    checks = [check for check in CHECKS if any(row.check == check for row in compared)]
    lines, wrong = [], 0
    for case, rows in by_case.items():
        bad = any(row.verdict not in PASSING for row in rows)
        wrong += bad
        verdict = f"**differs** {(causes or {}).get(case, '')}".strip() if bad else "equal"
        lines.append([case, *(_cell([row for row in rows if row.check == check]) for check in checks), verdict])
    versions = ", ".join(f"{name} {version}" for name, version in backends.items())
    counts = f"{len(by_case)} cases, {len(compared)} comparisons; {len(by_case) - wrong} cases equal, {wrong} not."
    return f"{versions}.\n\n{markdown_table(['case', *checks, 'verdict'], lines)}\n\n{counts}\n"


def _cell(rows: Sequence[Row]) -> str:
    rows = [row for row in rows if row.verdict != "skipped"]
    if not rows:
        return "-"
    if any(row.verdict in ("failed", "missing") for row in rows):
        return "**failed**"
    size = max(row.relative for row in rows if row.relative is not None)
    shown = ("0" if size == 0 else f"{size:.1e}") if math.isfinite(size) else "not finite"
    return f"**{shown}**" if any(row.verdict == "differs" for row in rows) else shown
