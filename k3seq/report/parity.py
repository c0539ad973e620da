"""The page of a parity run: every case against every check, and what stands behind each cell."""

from k3seq.errors import require_extra
from k3seq.report.parts import Cell, fold, log, page, picture, section, table, text

# From the worst: a cell shows the worst of its pairs.
VERDICTS = ("failed", "differs", "missing", "tie", "equal", "skipped")
BAD = ("failed", "differs")
_PATIENCE = 20_000  # characters of a worker's stderr that are shown


def parity_page(report, title="Parity"):
    """The page of `k3seq.parity.Report.to_json()`, a str.

    Args:
        report: {"ok", "seconds", "backends": {name: version or None}, "rows"}; infinities and NaN may stand as text, as JSON
            files of k3seq hold them.
        title: of the page.
    """
    rows = report["rows"]
    counts = {verdict: sum(row["verdict"] == verdict for row in rows) for verdict in VERDICTS}
    told = ", ".join(f"{count} {verdict}" for verdict, count in counts.items() if count) or "nothing was compared"
    backends = ", ".join(f"{name} {version or 'not installed'}" for name, version in report["backends"].items())
    words = "Nothing differs" if report["ok"] else "NOT everything is equal"
    head = text(f"{words}: {told}. {report['seconds']:.0f} s. Backends: {backends}.")
    bad = [row for row in rows if row["verdict"] in BAD]
    failures = [section("What differs", *map(_failure, bad))] if bad else []
    return page(
        title, head, *failures, section("Cases and checks", _grid(rows)), *_errors(rows), section("Every row", *_cases(rows))
    )


def _grid(rows):
    checks = list(dict.fromkeys(row["check"] for row in rows))
    names = list(dict.fromkeys(map(_name, rows)))
    held = {}
    for row in rows:
        held.setdefault((_name(row), row["check"]), []).append(row)
    return table(["case", *checks], [[name, *(_cell(held.get((name, check), ())) for check in checks)] for name in names])


def _cell(rows):
    if not rows:
        return Cell("")
    worst = min((row["verdict"] for row in rows), key=VERDICTS.index)
    errors = [_number(row["relative"]) for row in rows if row["relative"] is not None]
    largest = _short(max(errors)) if errors else ""
    shown = " ".join(part for part in (worst if worst != "equal" else "", largest) if part) or worst
    hints = [f"{_pair(row)}: {row['verdict']} {_short(row['relative'])} {row['where']}".strip() for row in rows]
    return Cell(shown, worst, "\n".join(hints))


def _failure(row):
    lines = [row[name] for name in ("message", "judge") if row[name]]
    error = f", {_short(row['relative'])} where {_short(row['tolerance'])} is allowed" if row["relative"] is not None else ""
    where = f" at {row['where']}" if row["where"] else ""
    summary = f"{_name(row)}, {row['check']}, {_pair(row)}: {row['verdict']}{error}{where}"
    stderr = [log(row["stderr"][-_PATIENCE:])] if row["stderr"] else []
    return fold(summary, *map(text, lines), *stderr, opened=bool(lines) and not stderr)


def _cases(rows):
    held = {}
    for row in rows:
        held.setdefault(_name(row), []).append(row)
    head = ("check", "pair", "verdict", "relative", "absolute", "allowed", "where", "message", "s")
    for name, own in held.items():
        cells = [
            [
                row["check"],
                _pair(row),
                Cell(row["verdict"], row["verdict"]),
                *(Cell(_short(row[key]), "number") for key in ("relative", "absolute", "tolerance")),
                row["where"],
                " ".join(row[key] for key in ("message", "judge") if row[key]),
                Cell("" if row["seconds"] is None else f"{row['seconds']:.2f}", "number"),
            ]
            for row in own
        ]
        yield fold(f"{name} ({len(own)})", table(head, cells))


def _errors(rows):
    """A picture of every measured error over what is allowed, by check; none where nothing was measured."""
    with require_extra("report"):
        from matplotlib.figure import Figure

    measured = [r for r in rows if r["tolerance"] and r["relative"] is not None and 0 <= _number(r["relative"]) < float("inf")]
    if not measured:
        return []
    checks = list(dict.fromkeys(row["check"] for row in measured))
    figure = Figure(figsize=(8, 0.6 + 0.4 * len(checks)))
    axes = figure.subplots()
    for verdict, colour in (("equal", "#2e7d32"), ("tie", "#f9a825"), ("differs", "#c62828")):
        own = [row for row in measured if row["verdict"] == verdict]
        shares = [max(_number(row["relative"]) / row["tolerance"], 1e-6) for row in own]  # an exact 0 stands at the edge
        axes.plot(shares, [checks.index(row["check"]) for row in own], "|", color=colour, markersize=12, label=verdict)
    axes.axvline(1.0, color="#888888", linewidth=1)
    axes.set(xscale="log", yticks=range(len(checks)), yticklabels=checks, ylim=(len(checks) - 0.5, -0.5))
    axes.set_xlabel("error over what is allowed (1 = the tolerance)")
    return [section("How near to the tolerance", picture(figure, f"{len(measured)} measured errors."))]


def _name(row):
    if not row["case"]:
        return "(backends)"  # one that is not installed
    return row["case"] if row["dtype"] == "float32" else f"{row['case']} ({row['dtype']})"


def _pair(row):
    return (" to " if row["check"] == "files" else " and ").join(row["pair"]) or "no pair"


def _number(value):
    return float("inf") if value in ("NaN", "Infinity", "-Infinity") or value != value else float(value)


def _short(value):
    return "" if value is None else "infinite" if _number(value) == float("inf") else f"{_number(value):.1e}" if value else "0"
