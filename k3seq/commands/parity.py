"""`k3seq parity`: layers and models compared across backends, a table that grows while it runs."""

import json as json_text
from pathlib import Path

from k3seq.errors import UsageError
from k3seq.report.record import plain

STYLES = {"equal": "green", "tie": "green", "skipped": "dim", "missing": "yellow", "differs": "bold red", "failed": "bold red"}
SHOWN = 12  # rows of the live table: the last ones; all of them come at the end
WIDTH = 140  # of what is printed where there is no terminal: room for all checks


def parity(targets=(), backends=(), checks=(), dtypes=(), inputs=None, html=None):
    """Compares what the targets name and prints a table.

    Args:
        targets: `package.module:name` of a case, of cases or of a factory, or patterns over the names of
            k3seq's own cases; none: all of those.
        backends: names; none: all of the matrix, the missing ones told but not held against the run.
        checks, dtypes: names; none: each case's own checks, and float32.
        inputs: JSON of the inputs of the factories among the targets, as text.
        html: a file for the page, or None.

    Returns:
        `Report.to_json()` with `exit_code`: 1 when something differs, a worker failed, or a backend that was named is missing.

    Raises:
        UsageError: an unknown name, or inputs that are not JSON.
    """
    from k3seq.parity.suite import Pool, resolve
    from k3seq.parity.suite import run_parity as compare

    if html is not None and not Path(html).absolute().parent.is_dir():
        raise UsageError(f"Expected a file in a folder that exists for --html. Received: {html}")
    with Pool(list(backends) or None) as pool:
        cases = resolve(list(targets), pool, _read(inputs))
        with _Table(len(cases)) as table:
            report = compare(
                cases,
                list(backends) or None,
                list(checks) or None,
                table.add,
                pool=pool,
                dtypes=tuple(dtypes) or ("float32",),
            )
    _summary(report, table.console)
    if html is not None:
        from k3seq.report import parity_page, write

        write(Path(html), parity_page(plain(report.to_json())))
    return report.to_json() | {"exit_code": int(not report.ok)}


def _read(inputs):
    if inputs is None:
        return None
    try:
        return json_text.loads(inputs)
    except ValueError as error:
        raise UsageError(f"Expected JSON for --inputs. Received: {inputs} ({error})") from error


class _Table:
    """The live table: on a terminal the last rows and the cases done; elsewhere a line for what is not equal, as it comes."""

    def __init__(self, cases):
        from rich.live import Live

        self.console, self.cases, self.rows, self.done = _console(), cases, [], set()
        self.live = Live(console=self.console, refresh_per_second=4, transient=True) if self.console.is_terminal else None

    def __enter__(self):
        if self.live:
            self.live.__enter__()
        return self

    def __exit__(self, *error):
        if self.live:
            self.live.__exit__(*error)

    def add(self, row):
        """One more row."""
        self.rows.append(row)
        if row.case:
            self.done.add(row.case)
        if self.live:
            self.live.update(table(self.rows[-SHOWN:], f"parity: {len(self.done)} of {self.cases} cases"))
        elif row.verdict not in ("equal", "skipped"):
            self.console.print(line(row), markup=False, highlight=False, soft_wrap=True)


def line(row):
    """A row as one line of text."""
    numbers = "" if row.relative is None else f" {row.relative:.1e} > {row.tolerance:.1e}"
    told = "; ".join(part for part in (row.where, row.message, row.judge) if part)
    kind = row.check if row.dtype == "float32" else f"{row.check} ({row.dtype})"
    return f"{row.verdict}: {row.case} {kind} {'/'.join(row.pair)}{numbers} {told}".strip()


def table(rows, title):
    """The rows as a rich table."""
    from rich.table import Table
    from rich.text import Text

    found = Table(title=title)
    for column in ("case", "check", "backends", "verdict"):
        found.add_column(column)
    for column in ("relative", "absolute", "tolerance"):
        found.add_column(column, justify="right")
    found.add_column("", overflow="fold")
    for row in rows:
        numbers = ["" if n is None else f"{n:.1e}" for n in (row.relative, row.absolute, row.tolerance)]
        told = [part for part in (row.where if row.verdict != "equal" else "", row.message, row.judge) if part]
        kind = row.check if row.dtype == "float32" else f"{row.check} {row.dtype}"
        cells = [row.case, kind, "/".join(row.pair)]
        style = STYLES[row.verdict]
        found.add_row(*map(Text, cells), Text(row.verdict, style), *numbers, Text("\n".join(told)))
    return found


def _console():
    from rich.console import Console

    console = Console()
    return console if console.is_terminal else Console(width=max(WIDTH, console.width))


def _summary(report, console):
    """Each case and check with its worst pair, then the rows that do not pass (without a terminal they were told before)."""
    from rich.table import Table
    from rich.text import Text

    checks = list(dict.fromkeys(row.check for row in report.rows if row.case))
    found = Table(title="parity: the largest relative error of any pair")
    for column in ("case", *checks):
        found.add_column(column, no_wrap=True)
    for case in dict.fromkeys((row.case, row.dtype) for row in report.rows if row.case):
        cells = [_worst([r for r in report.rows if (r.case, r.dtype) == case and r.check == check]) for check in checks]
        found.add_row(Text(case[0] if case[1] == "float32" else f"{case[0]} {case[1]}"), *cells)
    console.print(found)
    for row in report.rows:
        if row.verdict in ("differs", "failed", "missing") and (console.is_terminal or row.stderr):
            console.print(line(row), markup=False, highlight=False, soft_wrap=True)
            if row.stderr:
                console.print("\n".join(row.stderr.splitlines()[-15:]), markup=False, highlight=False, soft_wrap=True)
    compared = sum(row.verdict in ("equal", "tie", "differs") for row in report.rows)
    console.print(f"{compared} comparisons, {len(report.failures())} not equal, {report.seconds:.0f} s", highlight=False)


def _worst(rows):
    from rich.text import Text

    order = list(STYLES)
    if not rows:
        return Text("")
    row = max(rows, key=lambda r: (order.index(r.verdict), r.relative or 0.0))
    told = row.verdict if row.relative is None or row.verdict == "tie" else f"{row.relative:.1e}" if row.relative else "0"
    return Text("-" if row.verdict == "skipped" else told, STYLES[row.verdict])
