"""`k3seq backends`: which backends are installed, their versions, devices and recurrent kernels."""

from k3seq.commands.consoles import log_console, results_console
from k3seq.runtime import matrix, workers

TIMEOUT = 180.0  # the first import of a framework on a slow disk


def describe(payload):
    """Runs in the launched process."""
    from k3seq import backend

    return backend.describe()


def backends(names=()):
    """Asks every backend in a process of its own and prints a table, and one of the kernels that recurrent layers take.

    Args:
        names: the backends to show; none means all of the matrix.
    Returns:
        `{"backends": {name: {"status", "version", "tested", "install", "kernels", ...}}, "exit_code"}`; `status` is
        `installed`, `missing` or `broken` (installed, but it does not start: `message` and `stderr` say why, exit code 1).
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
        row = {"version": matrix.installed(name, known), "tested": entry.version or None, "install": entry.install}
        answer = answers[name]
        if not isinstance(answer, workers.Failure):
            found[name] = row | {"status": "installed"} | answer
        elif answer.kind == "missing":
            found[name] = row | {"status": "missing"}
        else:
            found[name] = row | {"status": "broken", "message": answer.message, "stderr": answer.stderr}
    table = Table(title="Backends")
    for column in ("backend", "status", "version", "tested", "keras", "devices", "jit"):
        table.add_column(column, overflow="fold")
    for name, row in found.items():
        what = {"missing": row["install"], "broken": row.get("message")}.get(row["status"]) or _devices(row)
        columns = (name, row["status"], row["version"], row["tested"], row.get("keras"), what, row.get("jit"))
        table.add_row(*("" if c is None else str(c) for c in columns))
    results_console().print(table)
    kernels = Table(title="What a recurrent layer runs on (layer.explain() says it of one layer)")
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
