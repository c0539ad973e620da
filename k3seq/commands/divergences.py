"""`k3seq divergences`: which of the known divergences the installed Keras still has."""

from pathlib import Path

from k3seq.commands.consoles import log_console, results_console
from k3seq.data.files import replacing
from k3seq.parity import divergences as known
from k3seq.runtime import matrix

_STYLES = {"present": "yellow", "gone": "green", "absent": "dim", "new": "red", "not applicable": "dim", "broken": "red"}


def divergences(ids=(), backends=()):
    """Runs the reproducers, one process per backend, and prints a table.

    Args:
        ids: of the catalogue; none means all.
        backends: names of the matrix; none means all of it. Those that are not installed are left out.
    Returns:
        `{"divergences": [{"id", "title", "kind", "backends": {name: {"status", "seen", "control"}}}], "exit_code"}`; the
        exit code is 1 where a reproducer is broken or no backend is installed.
    Raises:
        UsageError: an unknown id or backend.
    """
    backends_file = matrix.load()
    entries = known.choose(ids)
    names = [backends_file.backend(name).name for name in (backends or backends_file.backends)]
    with log_console().status(f"Starting {', '.join(names)}") as status:
        done = []

        def tell(one, name):
            done.append(one)
            status.update(f"{len(done)} of {len(entries) * len(names)}: {one} on {name}")

        answers = known.observe(entries, names, backends_file, tell)
    rows = [{"id": e.id, "title": e.title, "kind": e.kind, "backends": known.judge(e, answers[e.id])} for e in entries]
    _show(rows, names)
    statuses = [told["status"] for row in rows for told in row["backends"].values()]
    return {"divergences": rows, "exit_code": int(not statuses or "broken" in statuses)}


def write_page(path: Path):
    """Writes the page of all known divergences, Markdown, in the place of `path`; runs nothing."""
    with replacing(path) as temporary:
        temporary.write_text(known.markdown(known.load()), encoding="utf-8")
    print(f"wrote {path}")
    return {"page": str(path)}


def _show(rows, names):
    from rich.table import Table
    from rich.text import Text

    table = Table(title="Known divergences", show_lines=len(rows) == 1)
    for column in ("id", *names, "seen"):
        table.add_column(column, overflow="fold")
    for row in rows:
        told = row["backends"]
        cells = [
            Text(told[n]["status"], _STYLES[told[n]["status"]]) if n in told else Text("not installed", "dim") for n in names
        ]
        shown = [f"{n}: {t['seen']}" for n, t in told.items() if t["status"] not in ("absent", "not applicable")]
        if len(rows) == 1:
            shown = [line for n, t in told.items() for line in (f"{n}: {t['seen']}", f"   correct form: {t['control']}")]
        table.add_row(row["id"], *cells, Text("\n".join(shown if len(rows) == 1 else shown[:1])))
    results_console().print(table)
