"""`k3seq backends`: which backends are installed, their versions, devices and recurrent kernels."""

from collections.abc import Iterable
from typing import Any

from k3seq.commands.consoles import log_console, results_console
from k3seq.runtime import matrix, workers

TIMEOUT = 180.0  # the first import of a framework on a slow disk


def describe(payload: None) -> dict[str, Any]:
    """`k3seq.backend.describe()`, called in a worker."""
    from k3seq import backend

    return backend.describe()


def backends(names: Iterable[str] = ()) -> dict[str, Any]:
    """Starts a process for each backend and prints their versions and devices, and the kernels that recurrent layers use.

    Args:
        names: the backends to show; none means all of the matrix.

    Returns:
        `{"backends": {name: {"status", "version", "tested", "trains", "install", "kernels", ...}}, "exit_code"}`; `status` is
        `installed`, `missing` or `broken` (installed, but it does not start: `message` and `stderr` hold the reason, exit
        code 1).

    Raises:
        UsageError: a name that is not in the matrix.
    """
    from rich.table import Table

    known = matrix.load()
    entries = {name: known.backend(name) for name in (names or known.backends)}
    found = {}
    with log_console().status(f"Starting {', '.join(entries)}"):
        answers = workers.launch_all(list(entries), f"{__name__}:describe", None, TIMEOUT, backends=known, workers=len(entries))
    for name, entry in entries.items():
        row = {"version": matrix.installed(name, known), "tested": entry.version or None}
        row |= {"trains": entry.trains, "install": entry.install}
        answer = answers[name]
        if not isinstance(answer, workers.Failure):
            found[name] = row | {"status": "installed"} | answer
        elif answer.kind == "missing":
            found[name] = row | {"status": "missing"}
        else:
            found[name] = row | {"status": "broken", "message": answer.message, "stderr": answer.stderr}
    table = Table(title="Backends")
    for column in ("backend", "status", "version", "tested", "keras", "trains", "devices", "jit"):
        table.add_column(column, overflow="fold")
    for name, row in found.items():
        what = {"missing": row["install"], "broken": row.get("message")}.get(row["status"]) or _devices(row)
        trains = "yes" if row["trains"] else "no"
        columns = (name, row["status"], row["version"], row["tested"], row.get("keras"), trains, what, row.get("jit"))
        table.add_row(*("" if c is None else str(c) for c in columns))
    results_console().print(table)
    kernels = Table(title="Kernels of recurrent layers (layer.explain() shows those of one layer)")
    for column in ("backend", "layer", "kernel"):
        kernels.add_column(column, overflow="fold")
    for name, row in found.items():
        for kernel, words in row.get("kernels", {}).items():
            kernels.add_row(name, kernel.removesuffix("_sequence").upper(), words)
    if kernels.row_count:
        results_console().print(kernels)
    return {"backends": found, "exit_code": int(any(row["status"] == "broken" for row in found.values()))}


def _devices(row):
    return ", ".join(str(device) for device in row.get("devices", ()))
