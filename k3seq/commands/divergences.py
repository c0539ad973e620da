"""`k3seq divergences`: which of the known divergences the installed Keras still has."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from k3seq.commands.consoles import log_console, results_console
from k3seq.data.files import replacing
from k3seq.parity import divergences as known
from k3seq.runtime import matrix
from k3seq.typing import Json

STYLES = {"present": "yellow", "gone": "green", "absent": "dim", "new": "red", "not applicable": "dim", "broken": "red"}


def divergences(ids: Sequence[str] = (), backends: Sequence[str] = ()) -> dict[str, Json]:
    """Runs the reproducers, one process per backend, and prints a table.

    Args:
        ids: of the divergences; none: all.
        backends: names of the matrix; none: all that train. Backends that are not installed are left out.

    Returns:
        `{"divergences": [{"id", "title", "kind", "backends": {name: {"status", "seen", "control"}}}], "exit_code"}`; the
        exit code is 1 where a reproducer is broken or no backend is installed.

    Raises:
        UsageError: an unknown id or backend.
    """
    backends_file = matrix.load()
    entries = known.choose(ids)
    names = [backends_file.backend(name).name for name in (backends or backends_file.training)]
    with log_console().status(f"Starting {', '.join(names)}") as status:
        done = []

        def show(one: str, name: str) -> None:
            done.append(one)
            status.update(f"{len(done)} of {len(entries) * len(names)}: {one} on {name}")

        answers = known.observe(entries, names, backends_file, show)
    rows = [{"id": e.id, "title": e.title, "kind": e.kind, "backends": known.assess(e, answers[e.id])} for e in entries]
    _print_table(rows, names)
    statuses = [found["status"] for row in rows for found in row["backends"].values()]
    return {"divergences": rows, "exit_code": int(not statuses or "broken" in statuses)}


def write_page(path: Path) -> dict[str, Json]:
    """Writes the page of all known divergences, Markdown, to `path`, and runs nothing; returns {"page": path}."""
    with replacing(path) as temporary:
        temporary.write_text(known.markdown(known.load()), encoding="utf-8")
    print(f"wrote {path}")
    return {"page": str(path)}


def _print_table(rows: Sequence[Mapping[str, Json]], names: Sequence[str]) -> None:
    from rich.table import Table
    from rich.text import Text

    table = Table(title="Known divergences", show_lines=len(rows) == 1)
    for column in ("id", *names, "seen"):
        table.add_column(column, overflow="fold")
    for row in rows:
        found = row["backends"]
        statuses = [found[name]["status"] if name in found else "not installed" for name in names]
        shown = [f"{n}: {f['seen']}" for n, f in found.items() if f["status"] not in ("absent", "not applicable")][:1]
        if len(rows) == 1:
            shown = [line for n, f in found.items() for line in (f"{n}: {f['seen']}", f"   correct form: {f['control']}")]
        table.add_row(row["id"], *(Text(s, STYLES.get(s, "dim")) for s in statuses), Text("\n".join(shown)))
    results_console().print(table)
