"""`k3seq matrix`: the tests once per backend of the matrix, a table at the end, one exit code. Works in any project."""

import importlib.util
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

from k3seq.commands.consoles import results_console
from k3seq.errors import MissingPackage, UsageError
from k3seq.runtime import matrix as matrix_file

COUNTS = ("passed", "failed", "skipped", "xfailed")
THREADS = ("OMP_NUM_THREADS", "TF_NUM_INTRAOP_THREADS", "TF_NUM_INTEROP_THREADS")
ONCE = "once"
_NO_TESTS = 5  # pytest's exit code


def matrix(names: Iterable[str] = (), arguments: Sequence[str] = (), workers: int | None = None) -> dict[str, Any]:
    """Runs pytest in the working directory once per backend, output as it comes, and prints a table.

    With several backends, the tests marked `once` are a run apart, on the last of them, and a row of the table named `once`.
    Runs at the same time share the cores, and each line of output begins with the name of its run. A backend that does not
    train runs the tests marked `inference`.

    Args:
        names: backends in the order to run them; none means all of the matrix.
        arguments: for pytest.
        workers: runs at a time; None: as many as there are cores.

    Returns:
        `{"backends": [{"backend", "passed", "failed", "skipped", "xfailed", "seconds", "exit", "note"}], "exit_code"}`. The
        exit code is 1 when a run failed, when a backend that is not optional is missing, or when no test ran at all.

    Raises:
        UsageError: a name that is not in the matrix, or pytest is not installed.
    """
    known = matrix_file.load()
    entries = [known.backend(name) for name in (names or known.backends)]
    if importlib.util.find_spec("pytest") is None:
        raise MissingPackage('pytest is not installed. Install it with: pip install "k3seq[test]"')
    if workers is not None and workers < 1:
        raise UsageError(f"Expected --workers of at least 1. Received: {workers}")
    there = [entry for entry in entries if matrix_file.installed(entry.name, known) is not None]
    runs = _runs([e.name for e in there if e.trains], [e.name for e in there if not e.trains], arguments)
    done = _all_tests(runs, min(workers or os.cpu_count() or 1, max(len(runs), 1)))
    rows = [
        done.get(entry.name) or {"backend": entry.name, "note": f"missing: {entry.install}", "ok": entry.optional}
        for entry in entries
    ]
    if done.get(ONCE, {}).get("exit", _NO_TESTS) != _NO_TESTS:
        rows.append(done[ONCE])
    ran = [row for row in rows if row.get("exit") not in (None, _NO_TESTS)]
    _show(rows)
    failed = not ran or not all(row["ok"] for row in rows)
    return {"backends": rows, "exit_code": int(failed)}


def _runs(train, infer, arguments):
    """`{name: (backend, arguments of pytest)}` in the order to start them, for backends that train and that only infer."""
    runs = {name: (name, list(arguments)) for name in train}
    if len(train) > 1:
        *others, last = train
        runs = {name: (name, and_marked(arguments, "not once")) for name in others}
        # Before the last backend: the first ones compile and take longest, so that the cores are evenly used to the end.
        runs[ONCE] = last, and_marked(arguments, "once")
        runs[last] = last, and_marked(arguments, "not once")
    return runs | {name: (name, and_marked(arguments, "inference")) for name in infer}


def and_marked(arguments: Iterable[str], expression: str) -> list[str]:
    """The arguments of pytest with `expression` added to the marker expression that they hold."""
    kept, expressions = [], []
    waiting = iter(arguments)
    for argument in waiting:
        if argument == "-m":
            expressions = [next(waiting, "")]
        elif argument.startswith("-m") and not argument.startswith("--"):
            expressions = [argument[2:]]
        else:
            kept.append(argument)
    return [*kept, "-m", " and ".join([*(f"({e})" for e in expressions if e), expression])]


def _all_tests(runs, workers):
    """The rows of `{name: (backend, arguments)}`, run by so many workers in that order."""
    if workers <= 1:
        rows = {}
        for name, (backend, arguments) in runs.items():
            results_console().rule(name)
            sys.stdout.flush()
            rows[name] = _tests(name, backend, arguments)
        return rows
    running, pool, width = [], ThreadPoolExecutor(workers), max(map(len, runs))
    try:
        share = str(max(1, (os.cpu_count() or 1) // workers))  # threads beyond it would wait for each other
        rows = {
            name: pool.submit(_tests, name, backend, arguments, f"{name:>{width}} | ", running, dict.fromkeys(THREADS, share))
            for name, (backend, arguments) in runs.items()
        }
        return {name: row.result() for name, row in rows.items()}
    except BaseException:  # Ctrl-C in this process alone: the others must not go on
        pool.shutdown(wait=False, cancel_futures=True)
        for process in running:
            process.terminate()
        raise
    finally:
        pool.shutdown()


def _tests(name, backend, arguments, prefix=None, running=None, defaults=None):
    """The row of one run of pytest. With a prefix, every line of output begins with it; `running` gathers the process. The
    environment counts before `defaults`."""
    environment = (
        (defaults or {}) | os.environ | {"KERAS_BACKEND": backend} | ({} if prefix is None else {"PYTHONUNBUFFERED": "1"})
    )
    pipes = (
        {} if prefix is None else {"stdout": subprocess.PIPE, "stderr": subprocess.STDOUT, "text": True, "errors": "replace"}
    )
    with tempfile.TemporaryDirectory(prefix="k3seq-") as folder:
        report = Path(folder, "report.xml")
        started = time.monotonic()
        command = [sys.executable, "-m", "pytest", *arguments, f"--junitxml={report}"]
        with subprocess.Popen(command, env=environment, **pipes) as process:
            if running is not None:
                running.append(process)
            for line in process.stdout or ():
                sys.stdout.write(f"{prefix}{line}")
                sys.stdout.flush()
        row = {"backend": name, "seconds": round(time.monotonic() - started, 1), "exit": process.returncode}
        row["ok"] = process.returncode in (0, _NO_TESTS)
        row["note"] = "" if process.returncode != _NO_TESTS else "no test for this backend"
        if process.returncode == 2:
            row["note"] = "interrupted, or a file could not be collected"
        if process.returncode < 0 or not report.exists():
            return row | {"note": f"pytest ended with {process.returncode} before its report", "ok": False}
        return row | counts(report)


def counts(report: Path) -> dict[str, int]:
    """Passed, failed (errors too), skipped and xfailed tests of a JUnit XML report."""
    found: dict[str, int] = dict.fromkeys(COUNTS, 0)
    for case in ElementTree.parse(report).iter("testcase"):
        skipped = case.find("skipped")
        if case.find("failure") is not None or case.find("error") is not None:
            found["failed"] += 1
        elif skipped is not None:
            found["xfailed" if skipped.get("type") == "pytest.xfail" else "skipped"] += 1
        else:
            found["passed"] += 1
    return found


def _show(rows):
    from rich.table import Table
    from rich.text import Text

    table = Table(title="Matrix")
    table.add_column("backend")
    for column in (*COUNTS, "seconds", "exit"):
        table.add_column(column, justify="right")
    table.add_column("", overflow="fold")
    for row in rows:
        numbers = [str(row.get(column, "")) for column in (*COUNTS, "seconds", "exit")]
        table.add_row(row["backend"], *numbers, Text(row["note"]), style=None if row["ok"] else "red")
    results_console().print(table)
