"""The HTML page of a parity run: every case against every check, and the details of each cell."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING

from k3seq.errors import require_extra
from k3seq.parity.rows import Report, Row
from k3seq.parity.verdicts import FAILING, worst
from k3seq.report.parts import Cell, fold, log, page, picture, section, table, text
from k3seq.typing import Json

if TYPE_CHECKING:
    from markupsafe import Markup

STDERR_SHOWN = 20_000  # characters of a worker's stderr
COLORS = {"equal": "#2e7d32", "tie": "#f9a825", "differs": "#c62828"}


def parity_page(results: Mapping[str, Json], title: str = "Parity") -> str:
    """The page of `k3seq.parity.Report.to_json()`.

    Args:
        results: {"ok", "seconds", "backends": {name: version or None}, "rows"}; infinities and NaN may be text, as in the JSON
            files of k3seq.
        title: of the page.
    """
    rows = [Row.from_json(row) for row in results["rows"]]
    counts = Report(rows).counts() or "nothing was compared"
    backends = ", ".join(f"{name} {version or 'not installed'}" for name, version in results["backends"].items())
    result = "Nothing differs" if results["ok"] else "NOT everything is equal"
    head = text(f"{result}: {counts}. {results['seconds']:.0f} s. Backends: {backends}.")
    wrong = [row for row in rows if row.verdict in FAILING]
    failures = [section("What differs", *map(_failure, wrong))] if wrong else []
    grid = section("Cases and checks", _grid(rows))
    return page(title, head, *failures, grid, *_errors(rows), section("Every row", *_cases(rows)))


def _grid(rows: Sequence[Row]) -> "Markup":
    checks = list(dict.fromkeys(row.check for row in rows))
    by_cell: dict[tuple[str, str], list[Row]] = {}
    for row in rows:
        by_cell.setdefault((_name(row), row.check), []).append(row)
    names = list(dict.fromkeys(map(_name, rows)))
    return table(["case", *checks], [[name, *(_cell(by_cell.get((name, check), ())) for check in checks)] for name in names])


def _cell(rows: Sequence[Row]) -> Cell:
    if not rows:
        return Cell("")
    verdict = worst(row.verdict for row in rows)
    errors = [_infinite_if_nan(row.relative) for row in rows if row.relative is not None]
    largest = _short(max(errors)) if errors else ""
    shown = " ".join(part for part in (verdict if verdict != "equal" else "", largest) if part) or verdict
    return Cell(shown, verdict, "\n".join(row.summary() for row in rows))


def _failure(row: Row) -> "Markup":
    lines = [part for part in (row.message, row.judge) if part]
    stderr = [log(row.stderr[-STDERR_SHOWN:])] if row.stderr else []
    return fold(row.summary(), *map(text, lines), *stderr, opened=bool(lines) and not stderr)


def _cases(rows: Iterable[Row]) -> "Iterator[Markup]":
    by_case: dict[str, list[Row]] = {}
    for row in rows:
        by_case.setdefault(_name(row), []).append(row)
    head = ("check", "pair", "verdict", "relative", "absolute", "tolerance", "where", "message", "s")
    for name, own in by_case.items():
        cells = [
            [
                row.check,
                (" to " if row.check == "files" else " and ").join(row.pair) or "no pair",
                Cell(row.verdict, row.verdict),
                *(Cell(_short(value), "number") for value in (row.relative, row.absolute, row.tolerance)),
                row.where,
                " ".join(part for part in (row.message, row.judge) if part),
                Cell("" if row.seconds is None else f"{row.seconds:.2f}", "number"),
            ]
            for row in own
        ]
        yield fold(f"{name} ({len(own)})", table(head, cells))


def _errors(rows: Iterable[Row]) -> "list[Markup]":
    """A picture of every measured error divided by its tolerance, by check; none where nothing was measured."""
    with require_extra("report"):
        from matplotlib.figure import Figure

    shares: dict[tuple[str, str], list[float]] = {}
    for row in rows:
        if row.tolerance and row.relative is not None and _infinite_if_nan(row.relative) < float("inf"):
            share = max(row.relative / row.tolerance, 1e-6)  # an error of exactly 0 is drawn at the left edge
            shares.setdefault((row.check, row.verdict), []).append(share)
    if not shares:
        return []
    checks = list(dict.fromkeys(check for check, _ in shares))
    figure = Figure(figsize=(8, 0.6 + 0.4 * len(checks)))
    axes = figure.subplots()
    for verdict, color in COLORS.items():
        points = [(share, checks.index(check)) for (check, kind), own in shares.items() if kind == verdict for share in own]
        axes.plot([x for x, _ in points], [y for _, y in points], "|", color=color, markersize=12, label=verdict)
    axes.axvline(1.0, color="#888888", linewidth=1)
    axes.set(xscale="log", yticks=range(len(checks)), yticklabels=checks, ylim=(len(checks) - 0.5, -0.5))
    axes.set_xlabel("error divided by the tolerance")
    count = sum(map(len, shares.values()))
    return [section("Errors and tolerances", picture(figure, f"{count} measured errors."))]


def _name(row: Row) -> str:
    return row.label or "(backends)"  # the row of a backend that is not installed has no case


def _infinite_if_nan(value: float) -> float:
    return value if value == value else float("inf")


def _short(value: float | None) -> str:
    if value is None:
        return ""
    return "infinite" if _infinite_if_nan(value) == float("inf") else f"{value:.1e}" if value else "0"
