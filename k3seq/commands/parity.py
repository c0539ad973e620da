"""`k3seq parity`: compares layers and models across backends and shows a table that grows while it runs."""

from __future__ import annotations

import json as json_text
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any

from k3seq.commands.consoles import results_console
from k3seq.errors import UsageError
from k3seq.parity.verdicts import COMPARED, FAILING, worst
from k3seq.report.record import check_outputs
from k3seq.typing import Json

if TYPE_CHECKING:
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    from k3seq.parity import Pool, Report, Row

STYLES = {"equal": "green", "tie": "green", "skipped": "dim", "missing": "yellow", "differs": "bold red", "failed": "bold red"}
SHOWN = 12  # last rows in the live table; all of them are printed at the end


def parity(
    targets: Iterable[str] = (),
    backends: Sequence[str] = (),
    checks: Sequence[str] = (),
    dtypes: Sequence[str] = (),
    inputs: str | None = None,
    html: str | None = None,
) -> dict[str, Json]:
    """Compares what the targets name and prints a table.

    Args:
        targets: `package.module:name` of a case, of cases or of a factory, or patterns over the names of k3seq's own cases;
            none: all of those.
        backends: at least two names; none: all of the matrix, where a missing one is reported and is no failure.
        checks, dtypes: names; none: each case's own checks, and float32.
        inputs: JSON of the inputs of the factories among the targets, as text.
        html: a file for the page, or None.

    Returns:
        `Report.to_json()` with `exit_code`: 1 where something differs, a worker failed, or a named backend is missing.

    Raises:
        UsageError: fewer than two backends, an unknown name, or wrong inputs.
    """
    from k3seq.parity import Pool, resolve, run_parity
    from k3seq.parity.page import parity_page
    from k3seq.parity.suite import check_two
    from k3seq.report import write

    check_outputs({"--html": html})
    names = list(backends) or None
    check_two(names)
    given = _read(inputs)
    with Pool(names) as pool:
        _check_installed(pool)
        cases = resolve(targets, pool, given)
        with _Progress(len(cases)) as progress:
            wanted = list(checks) or None
            report = run_parity(cases, names, wanted, progress.add, pool=pool, dtypes=tuple(dtypes) or ("float32",))
    _print_summary(report, progress.console)
    if html is not None:
        write(html, parity_page(report.to_json()))
    return report.to_json() | {"exit_code": int(not report.ok)}


def _read(inputs: str | None) -> Json:
    if inputs is None:
        return None
    from k3seq.parity.case import check_inputs

    try:
        read = json_text.loads(inputs)
    except ValueError as error:
        raise UsageError(f"Expected JSON for --inputs. Received: {inputs} ({error})") from error
    try:
        check_inputs(read)
    except UsageError as error:
        raise UsageError(f"--inputs: {error}") from error
    return read


def _check_installed(pool: Pool) -> None:
    """Raises UsageError where fewer than two of the backends are installed."""
    if len(pool.present()) < 2:
        missing = [name for name in pool.names if pool.installed[name] is None]
        installs = "; ".join(f"install {name} with: {pool.matrix.backend(name).install}" for name in missing)
        received = ", ".join(pool.present()) or "none"
        raise UsageError(f"Expected at least two installed backends to compare. Received: {received} ({installs})")


class _Progress:
    """The live table: on a terminal the last rows and the number of cases; elsewhere a line for each row that is not equal."""

    def __init__(self, cases: int):
        from rich.live import Live

        self.console, self.cases = results_console(), cases
        self.rows: list[Row] = []
        self.done: set[str] = set()
        self.live = Live(console=self.console, refresh_per_second=4, transient=True) if self.console.is_terminal else None

    def __enter__(self) -> _Progress:
        if self.live:
            self.live.__enter__()
        return self

    def __exit__(self, *error: Any) -> None:
        if self.live:
            self.live.__exit__(*error)

    def add(self, row: Row) -> None:
        """Shows one more row."""
        self.rows.append(row)
        if row.case:
            self.done.add(row.case)
        if self.live:
            self.live.update(table(self.rows[-SHOWN:], f"parity: {len(self.done)} of {self.cases} cases"))
        elif row.verdict not in ("equal", "skipped"):
            _print(self.console, line(row))


def line(row: Row) -> str:
    """A row as one line of text."""
    return "; ".join(part for part in (row.summary(), row.message, row.judge) if part)


def table(rows: Iterable[Row], title: str) -> Table:
    """The rows as a table for the terminal."""
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
        notes = [part for part in (row.where if row.verdict != "equal" else "", row.message, row.judge) if part]
        cells = map(Text, (row.label, row.check, "/".join(row.pair)))
        found.add_row(*cells, Text(row.verdict, STYLES[row.verdict]), *numbers, Text("\n".join(notes)))
    return found


def _print(console: Console, text: str) -> None:
    console.print(text, markup=False, highlight=False, soft_wrap=True)


def _print_summary(report: Report, console: Console) -> None:
    """Prints each case with its worst row per check, then the rows that do not pass and were not printed before."""
    from rich.table import Table
    from rich.text import Text

    rows = [row for row in report.rows if row.case]
    checks = list(dict.fromkeys(row.check for row in rows))
    found = Table(title="parity: the largest relative error of any pair")
    for column in ("case", *checks):
        found.add_column(column, no_wrap=True)
    for label in dict.fromkeys(row.label for row in rows):
        cells = [_cell([row for row in rows if (row.label, row.check) == (label, check)]) for check in checks]
        found.add_row(Text(label), *cells)
    console.print(found)
    for row in report.rows:
        if row.verdict in (*FAILING, "missing") and (console.is_terminal or row.stderr):
            _print(console, line(row))
            if row.stderr:
                _print(console, "\n".join(row.stderr.splitlines()[-15:]))
    compared = sum(row.verdict in COMPARED for row in report.rows)
    _print(console, f"{compared} comparisons, {len(report.failures())} not equal, {report.seconds:.0f} s")


def _cell(rows: Sequence[Row]) -> Text:
    from rich.text import Text

    if not rows:
        return Text("")
    verdict = worst(row.verdict for row in rows)
    errors = [row.relative for row in rows if row.verdict == verdict and row.relative is not None]
    size = max(errors, default=None)
    shown = verdict if size is None or verdict == "tie" else f"{size:.1e}" if size else "0"
    return Text("-" if verdict == "skipped" else shown, STYLES[verdict])
