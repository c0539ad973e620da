"""Results as tables: live while it runs, on the terminal at the end, and as CSV. Imports no keras."""

import csv
import io
from collections.abc import Mapping, Sequence

from k3seq.bench.noise import Change
from k3seq.bench.work import Report, Row, mode
from k3seq.errors import require_extra

with require_extra("bench"):
    from rich.table import Table
    from rich.text import Text

COLUMNS = ("row", "median", "ratio", "spread", "cpu", "tokens/s", "first", "memory", "parity")
CHANGES = (
    "row",
    "older",
    "now",
    "ratio",
    "relative",
    "verdict",
)  # relative: the ratio relative to other rows of the same rounds
WIDTH = 116  # of a table that goes to a file
CSV = (
    "problem kind implementation backend jit status median low high quartile_low quartile_high cpu rounds steps tokens "
    "tokens_per_second "
    "imported built first base first_peak peak memory parity message"
).split()
_STYLES = {"differs": "red", "failed": "red", "missing": "yellow", "waiting": "dim", "interrupted": "yellow"}


def table(report: Report, title: str | None = None, changed: tuple[str, Row] | None = None) -> Table:
    """A rich table of a `Report`: the rows of a problem under its name, each with its ratio to the fastest of them.

    `ratio` is the median of the ratios within a round; `cpu` the processor time of a step, all threads added up.

    Args:
        report: a `Report`, complete or not. title: title of the table; None: the name of the suite. changed: (event, row) that
            the table shows as running.
    """
    made = Table(title=title or f"{report.suite}: median of {report.rounds} rounds, spread from the fastest to the slowest")
    for name in COLUMNS:
        made.add_column(name, justify="left" if name in ("row", "parity") else "right", overflow="fold")
    best, problem = fastest(report.rows), None
    for row in report.rows:
        if problem != row.work.problem:
            made.add_section()
            made.add_row(Text(row.work.problem, "bold"))
        made.add_row(*cells(row, best, changed), style=_STYLES.get(row.status))
        problem = row.work.problem
    return made


def fastest(rows: Sequence[Row]) -> dict[str, Row]:
    """{problem: the row with the smallest median}, of the measured rows whose losses do not differ."""
    best = {}
    for row in rows:
        if row.median is not None and row.status != "failed" and row.parity != "differs":
            other = best.setdefault(row.work.problem, row)
            best[row.work.problem] = row if row.median < other.median else other
    return best


def label(row: Row) -> str:
    """Implementation, backend and jit mode of a row: `k3seq jax jit`. An engine without a backend shows only its name."""
    implementation, backend = row.work.implementation, row.work.backend
    return " ".join(
        part
        for part in (implementation, "" if row.about.get("backend") == implementation else backend, mode(row.work.jit))
        if part
    )


def cells(row: Row, best: Mapping[str, Row], changed: tuple[str, Row] | None = None) -> list[str | Text]:
    """The texts of a row for `COLUMNS`."""
    spread = row.spread
    if row.median is None or spread is None or row.status == "failed":
        event = changed[0] if changed is not None and changed[1] is row else None
        return [label(row), *[""] * 7, Text(event or row.status + (f": {row.message}" if row.message else ""))]
    low, high = spread
    ratio = row.ratio(best[row.work.problem]) if row.work.problem in best else None
    return [
        label(row),
        milliseconds(row.median),
        "" if ratio is None else f"{ratio:.2f}x",
        f"{milliseconds(low)} .. {milliseconds(high)}",
        "" if row.cpu is None else milliseconds(row.cpu),
        "" if row.tokens_per_second is None else f"{row.tokens_per_second:,.0f}",
        "" if row.first is None else f"{row.first:.2f} s",
        "" if row.memory is None else f"{row.memory / 2**20:,.0f} MiB",
        Text(row.parity or "alone", _STYLES.get(row.parity, "")),
    ]


def milliseconds(seconds: float) -> str:
    """Seconds as text in milliseconds, three digits or more."""
    value = seconds * 1e3
    return f"{value:,.0f} ms" if value >= 100 else f"{value:.1f} ms" if value >= 10 else f"{value:.2f} ms"


def changes_table(changes: Sequence[Change], shift: float | None) -> Table:
    """A rich table of the changes since an older run; `shift` is the result of `noise.shift`."""
    together = "" if shift is None else f"; all rows together: {shift:.2f}x the older time"
    made = Table(title=f"Against the older run{together}")
    for name in CHANGES:
        made.add_column(name, justify="left" if name in ("row", "verdict") else "right", overflow="fold")
    styles = {"slower": "red", "faster": "green", "new": "cyan", "gone": "yellow"}
    for change in changes:
        made.add_row(change.key, *change_figures(change), change.verdict, style=styles.get(change.verdict))
    return made


def change_figures(change: Change) -> list[str]:
    """The texts of a change for the columns between "row" and "verdict" of `CHANGES`."""
    times = ("" if value is None else milliseconds(value) for value in (change.old, change.new))
    return [*times, *("" if value is None else f"{value:.2f}x" for value in (change.ratio, change.relative))]


def to_csv(report: Report) -> str:
    """The rows as CSV text with a head; times in seconds, memory in bytes, an empty field where there is no figure."""
    written = io.StringIO()
    writer = csv.DictWriter(written, CSV, lineterminator="\n")
    writer.writeheader()
    for row in report.rows:
        values = row.to_json()
        low, high = values["spread"] or ("", "")
        quartile_low, quartile_high = values["quartiles"] or ("", "")
        extra = dict(low=low, high=high, quartile_low=quartile_low, quartile_high=quartile_high)
        extra |= dict(jit=mode(row.work.jit), rounds=len(row.rounds))
        writer.writerow({name: {**values, **extra}[name] for name in CSV})
    return written.getvalue()
