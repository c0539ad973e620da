"""Runs cases on backends and reports what is equal: `run_parity(cases) -> Report`. Imports no Keras."""

import threading
import time
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from fnmatch import fnmatchcase

from k3seq.errors import K3SeqError, UsageError
from k3seq.parity.case import Case, check_inputs, check_names, from_payload
from k3seq.parity.examine import Examination
from k3seq.parity.pool import WORKER, Pool
from k3seq.parity.rows import Report, Row, without_escapes
from k3seq.parity.verdicts import CHECKS, DTYPES
from k3seq.runtime.workers import Failure
from k3seq.typing import Json

OWN = "k3seq.parity.own_cases:CASES"
AT_ONCE = 3  # cases at a time: while one waits for its slowest backend, the others have requests for the rest


def run_parity(
    cases: Iterable[Case],
    backends: Sequence[str] | None = None,
    checks: Sequence[str] | None = None,
    on_row: Callable[[Row], None] | None = None,
    *,
    pool: Pool | None = None,
    dtypes: Sequence[str] = ("float32",),
    judge: bool = True,
) -> Report:
    """Compares cases across backends.

    Args:
        cases: with different names.
        backends: at least two names; None: those of the pool, or all of the matrix. A missing backend is a row, and a failure
            if it was named.
        checks: names out of `verdicts.CHECKS`; None: each case's own.
        on_row: called with each `Row` as it is found, never from two threads at once.
        pool: workers to use, left open afterwards; None: workers for this run only.
        dtypes: out of `verdicts.DTYPES`; dtypes other than float32 run the checks of `verdicts.DTYPE_CHECKS`.
        judge: whether to look for the wrong backend (in float64) and the first layer with a mismatch where a check fails.

    Returns:
        The rows in the order of the cases.

    Raises:
        UsageError: an unknown backend, check, dtype or factory; one backend alone; two cases of one name; no case.
    """
    cases = list(cases)
    check_names(checks or (), CHECKS, "checks")
    check_names(dtypes, DTYPES, "dtypes")
    names = [case.name for case in cases]
    if not names or len(set(names)) < len(names):
        raise UsageError(f"Expected cases of different names. Received: {', '.join(names) or 'none'}")
    check_two(backends)
    if pool is None:
        with Pool(backends) as own:
            return run_parity(cases, backends, checks, on_row, pool=own, dtypes=dtypes, judge=judge)
    check_names(backends or (), pool.names, "backends")
    chosen = list(backends or pool.names)
    report = Report(backends={name: pool.installed[name] for name in chosen}, required=backends is not None)
    started, lock = time.monotonic(), threading.Lock()

    def shown(rows: list[Row]) -> list[Row]:
        if on_row:
            with lock:
                for row in rows:
                    on_row(row)
        return rows

    for name in chosen:
        if pool.installed[name] is None:
            install = pool.matrix.backend(name).install
            report.rows += shown([Row("", "backend", (name,), "missing", message=f"not installed; install it with: {install}")])
    check_factories(cases, pool, [name for name in pool.present() if name in chosen])

    def examine(case: Case, dtype: str) -> list[Row]:
        present = [name for name in pool.present(dtype) if name in chosen]
        wanted = tuple(c for c in CHECKS if c in (case.checks if checks is None else checks))
        if len(present) < 2:
            message = f"{dtype} on {', '.join(present) or 'no backend'}: there is nothing to compare"
            return shown([Row(case.name, "backend", (), "skipped", message=message, dtype=dtype)])
        return shown(Examination(case, present, wanted, pool, dtype, judge).examine())

    with ThreadPoolExecutor(AT_ONCE) as threads:
        jobs = [threads.submit(examine, case, dtype) for dtype in dtypes for case in cases]
        for job in jobs:
            report.rows += job.result()
    report.seconds = time.monotonic() - started
    return report


def check_two(backends: Sequence[str] | None) -> None:
    """Raises UsageError where one backend alone is named."""
    if backends is not None and len(backends) < 2:
        raise UsageError(f"Expected at least two backends to compare. Received: {', '.join(backends) or 'none'}")


def check_factories(cases: Iterable[Case], pool: Pool, present: Sequence[str]) -> None:
    """Raises UsageError, one line, for the first factory that cannot be imported on the first of the installed backends."""
    if len(present) > 1:
        factories = list(dict.fromkeys(case.factory for case in cases))
        answer = pool.request(present[0], f"{WORKER}:unknown_factories", {"factories": factories})
        if not isinstance(answer, Failure) and answer:
            raise UsageError(without_escapes(answer[0]))


def resolve(targets: Iterable[str] | None, pool: Pool, inputs: Json = None) -> list[Case]:
    """The cases that targets name.

    Args:
        targets: `package.module:name` of a `Case`, of a list of cases, or of a factory of a layer or model; without a colon a
            pattern over the names of k3seq's own cases (`k3seq.parity.own_cases:CASES`). None or empty: all of those.
        pool: its first installed backend imports the targets.
        inputs: JSON of a factory's inputs, each array as {"shape": [3, 5], "dtype": "int32", "high": 20}. None: the factory's
            attribute `example_inputs`, or the inputs of a functional model.

    Raises:
        UsageError: no object with that name, no inputs, or wrong inputs.
    """
    present = pool.present()
    if not present:
        raise UsageError("Expected an installed backend. Received: none")
    if inputs is not None:
        check_inputs(inputs)

    def named(target: str) -> list[Case]:
        answer = pool.request(present[0], f"{WORKER}:resolve", {"target": target, "inputs": inputs})
        if isinstance(answer, Failure):
            kind = UsageError if answer.kind in ("unknown", "exception") else K3SeqError
            message = without_escapes(answer.message.removeprefix("UsageError: "))
            raise kind(message if target in message else f"{target}: {message}")
        return [from_payload(payload) for payload in answer]

    found: list[Case] = []
    own = None
    for target in targets or ("*",):
        if ":" in target:
            found += named(target)
            continue
        own = named(OWN) if own is None else own
        matching = [case for case in own if fnmatchcase(case.name, target)]
        if not matching:
            names = ", ".join(case.name for case in own)
            raise UsageError(f"Expected package.module:name or a pattern over {names}. Received: {target}")
        found += matching
    return list({case.name: case for case in found}.values())
