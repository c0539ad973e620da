"""The HTML page of a benchmark: plots and tables of its rows. Imports no keras."""

from collections.abc import Sequence

from k3seq import report as pages
from k3seq.bench import table as tables
from k3seq.bench.noise import Change
from k3seq.bench.work import OPTIONAL, Report
from k3seq.errors import require_extra
from k3seq.report import Cell, fold, log, picture, section, table, text

COLORS = {"k3seq": "#1b6ca8", "own": "#1b6ca8", "keras": "#c1440e", "chunked loss": "#1b6ca8", "whole loss": "#c1440e"}
BACKENDS = {"jax": "#7b3fa0", "tensorflow": "#d9730d", "torch": "#c62828"}
_STDERR_SHOWN = 20_000  # characters


def bench_page(report: Report, changes: Sequence[Change] = (), shift: float | None = None) -> str:
    """The page of a `Report`, a str.

    Args:
        report: a `Report`. changes, shift: results of `noise.compare` and `noise.shift` for an older run.
    """
    machine = report.machine
    head = [
        f"{machine.get('processor')}, {machine.get('cores')} cores, {machine.get('platform')}.",
        f"{report.rounds} rounds, {report.seconds:.0f} s; load average {_load(machine)}.",
        "Bars and points are medians over the rounds. Lines reach from the fastest to the slowest round. The ratio is to the "
        "fastest row, within each round. cpu is the processor time of a step, summed over all threads.",
    ]
    if report.interrupted:
        head.insert(0, "INTERRUPTED: rows without a figure were not measured.")
    groups = {}
    for row in report.rows:
        groups.setdefault(row.work.problem, []).append(row)
    plain = {problem: rows for problem, rows in groups.items() if not rows[0].work.at}
    scaled = [row for row in report.rows if row.work.at and row.median is not None]
    parts = [text(" ".join(head)), section("Versions", _versions(report.rows))]
    parts += [section(problem, *_bars(rows), _table(rows)) for problem, rows in plain.items()]
    parts += _scaling(scaled)
    if scaled:
        parts.append(section("Every point", _table([row for row in report.rows if row.work.at])))
    if changes:
        parts.append(section("Against the older run", text(_shift(shift)), _changes(changes)))
    failed = [row for row in report.rows if row.stderr]
    if failed:
        parts.append(
            section("What failed", *(fold(f"{r.work.key}: {r.message}", log(r.stderr[-_STDERR_SHOWN:])) for r in failed))
        )
    return pages.page(f"Benchmark: {report.suite}", *parts)


def _load(machine):
    return " to ".join(f"{machine[key]:.1f}" for key in ("load_before", "load_after") if machine.get(key) is not None)


def _versions(rows):
    versions = {}
    for row in rows:
        if row.about:
            devices = ", ".join(row.about.get("devices", ()))
            peer = ", ".join(f"{name} {row.about[name]}" for name in OPTIONAL if name in row.about)
            versions.setdefault((row.about["backend"], row.about["version"], row.about.get("keras") or "", peer, devices))
    return table(["backend", "version", "keras", "peer", "devices"], [list(line) for line in versions])


def _bars(rows):
    """A bar for each measured row; an empty list where no row was measured."""
    with require_extra("report"):
        from matplotlib.figure import Figure

    shown = [row for row in rows if row.median is not None]
    if not shown:
        return []
    figure = Figure(figsize=(8, 0.7 + 0.32 * len(shown)))
    axes = figure.subplots()
    medians = [row.median * 1e3 for row in shown]
    ends = [[m - row.spread[0] * 1e3 for m, row in zip(medians, shown, strict=True)]]
    ends += [[row.spread[1] * 1e3 - m for m, row in zip(medians, shown, strict=True)]]
    colours = [COLORS.get(row.work.implementation, "#6b7a84") for row in shown]
    hatches = ["///" if row.parity == "differs" else "" for row in shown]
    axes.barh(range(len(shown)), medians, xerr=ends, color=colours, hatch=hatches, error_kw={"capsize": 2, "linewidth": 0.8})
    axes.set_yticks(range(len(shown)), [tables.label(row) for row in shown])
    axes.invert_yaxis()
    axes.set_xlabel("milliseconds per step")
    marked = " Hatched: its losses differ from those of the other rows." if any(hatches) else ""
    return [picture(figure, f"Blue: k3seq. Red: stock Keras. Gray: peers.{marked}")]


def _table(rows):
    best, cells = tables.fastest(rows), []
    for row in rows:
        texts = [str(cell) for cell in tables.cells(row, best)]
        style = {"equal": "equal", "differs": "differs"}.get(row.parity, "")
        about = f"{len(row.rounds)} rounds of {row.steps} steps"
        cells.append(
            [
                texts[0],
                *(Cell(word, "number", about if row.rounds else row.message) for word in texts[1:-1]),
                Cell(texts[-1], style, row.parity_note),
            ]
        )
    return table(tables.COLUMNS, cells)


def _scaling(rows):
    """Time and memory against each axis, with a line for each backend and implementation."""
    with require_extra("report"):
        from matplotlib.figure import Figure

    parts = []
    for axis in dict.fromkeys(axis for row in rows for axis in row.work.at):
        own = [row for row in rows if axis in row.work.at]
        figure = Figure(figsize=(10, 3.6), layout="constrained")
        pair = figure.subplots(1, 2)
        implementations = list(dict.fromkeys(row.work.implementation for row in own))
        for (implementation, backend), line in _lines(own).items():
            line = sorted(line, key=lambda row: row.work.at[axis])
            places = [row.work.at[axis] for row in line]
            style = dict(
                color=BACKENDS.get(backend),
                linestyle="-" if implementation == implementations[0] else "--",
                marker="o",
                markersize=3,
            )
            name = backend if len(implementations) == 1 else f"{backend}, {implementation}"
            pair[0].plot(places, [row.median * 1e3 for row in line], label=name, **style)
            pair[0].vlines(
                places, *([row.spread[i] * 1e3 for row in line] for i in (0, 1)), color=style["color"], linewidth=0.8
            )
            known = [row for row in line if row.memory is not None]
            pair[1].plot([row.work.at[axis] for row in known], [row.memory / 2**20 for row in known], **style)
        for axes, unit in zip(pair, ("milliseconds per step", "MiB above the memory after the import"), strict=True):
            axes.set(xlabel=axis, ylabel=unit, ylim=(0, None), xticks=sorted({row.work.at[axis] for row in own}))
        pair[0].legend(fontsize=8, loc="upper left")
        parts.append(section(f"Scaling: {axis}", picture(figure)))
    return parts


def _lines(rows):
    lines = {}
    for row in rows:
        lines.setdefault((row.work.implementation, row.work.backend), []).append(row)
    return lines


def _shift(shift):
    if shift is None:
        return "No row is in both runs."
    return (
        f"All rows together take {shift:.2f} times as long as before. A row changed where its rounds, relative to those "
        "of its peers or of the other rows, do not overlap with the older ones. The relative ratio leaves out the machine."
    )


def _changes(changes):
    style = {"slower": "differs", "faster": "equal"}
    rows = []
    for change in changes:
        numbers = [Cell(word, "number") for word in tables.change_figures(change)]
        rows.append([change.key, *numbers, Cell(change.verdict, style.get(change.verdict, ""))])
    return table(list(tables.CHANGES), rows)
