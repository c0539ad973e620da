"""Runs cases on backends and says what is equal: `run_parity(cases) -> Report`. Imports no keras; each backend is a
live process."""

import threading
import time
from concurrent.futures import ThreadPoolExecutor
from fnmatch import fnmatchcase

from k3seq.errors import K3SeqError, UsageError
from k3seq.parity.case import CHECKS, DTYPES, check_names, from_payload, specs
from k3seq.parity.examine import Examination
from k3seq.parity.pool import WORKER, Pool
from k3seq.parity.rows import PASSING, VERDICTS, Report, Row
from k3seq.runtime.workers import Failure

__all__ = ["PASSING", "VERDICTS", "Pool", "Report", "Row", "resolve", "run_parity"]

OWN = "k3seq.parity.own_cases:CASES"
UNDER_WAY = 3  # cases at a time: while one waits for its slowest backend, the others have work for the rest


def run_parity(cases, backends=None, checks=None, on_row=None, *, pool=None, dtypes=("float32",), judge=True):
    """Compares cases across backends.

    Args:
        cases: `case.Case` objects.
        backends: names; None: those of the pool, or all of the matrix. A missing one is a row, and a failure if it was named.
        checks: names out of `case.CHECKS`; None: each case's own.
        on_row: called with each `Row` as it is found (never from two threads at once).
        pool: a `Pool` to use and leave open; None: one for this run.
        dtypes: out of `case.DTYPES`; beside float32 only `parameters`, `forward`, `training` and `gradients` are compared.
        judge: look, where a check fails, for the backend that is off (float64) and the first layer that parts.

    Returns:
        A `Report`, its rows in the order of the cases.

    Raises:
        UsageError: an unknown backend, check or dtype; two cases of one name; no case.
    """
    cases = list(cases)
    check_names(checks or (), CHECKS, "checks")
    check_names(dtypes, DTYPES, "dtypes")
    names = [case.name for case in cases]
    if not names or len(set(names)) < len(names):
        raise UsageError(f"Expected cases of different names. Received: {', '.join(names) or 'none'}")
    if pool is None:
        with Pool(backends) as own:
            return run_parity(cases, backends, checks, on_row, pool=own, dtypes=dtypes, judge=judge)
    check_names(backends or (), pool.names, "backends")
    chosen = list(backends or pool.names)
    report = Report(backends={name: pool.installed[name] for name in chosen}, required=backends is not None)
    started, lock = time.monotonic(), threading.Lock()

    def told(rows):
        with lock:
            for row in rows if on_row else ():
                on_row(row)
        return rows

    for name in chosen:
        if pool.installed[name] is None:
            install = pool.matrix.backend(name).install
            report.rows += told([Row("", "backend", (name,), "missing", message=f"not installed; install it with: {install}")])

    def examine(case, dtype):
        present = [name for name in pool.present(dtype) if name in chosen]
        wanted = tuple(c for c in CHECKS if c in (case.checks if checks is None else checks))
        if len(present) < 2:
            message = f"{dtype} on {', '.join(present) or 'no backend'}: there is nothing to compare"
            return told([Row(case.name, "backend", (), "skipped", message=message, dtype=dtype)])
        return told(Examination(case, present, wanted, pool, dtype, judge).run())

    with ThreadPoolExecutor(UNDER_WAY) as threads:
        jobs = [threads.submit(examine, case, dtype) for dtype in dtypes for case in cases]
        for job in jobs:
            report.rows += job.result()
    report.seconds = time.monotonic() - started
    return report


def resolve(targets, pool, inputs=None):
    """Cases of targets.

    Args:
        targets: `package.module:name` of a `Case`, of a list of them, or of a factory of a layer or model; without a colon a
            pattern over the names of k3seq's own cases (`k3seq.parity.own_cases:CASES`). None or empty: all of those.
        pool: a `Pool`; its first installed backend imports what is named.
        inputs: JSON of a factory's inputs, each array as {"shape": [3, 5], "dtype": "int32", "high": 20}; None takes its
            attribute `example_inputs`, or what a functional model says of its own inputs.

    Raises:
        UsageError: nothing stands under a name, or a factory does not say what its inputs are.
    """
    present = pool.present()
    if not present:
        raise UsageError("Expected an installed backend. Received: none")

    def named(target):
        answer = pool.request(present[0], f"{WORKER}:resolve", {"target": target, "inputs": inputs})
        if isinstance(answer, Failure):
            kind = UsageError if answer.kind in ("unknown", "exception") else K3SeqError
            raise kind(f"{target}: {answer.message.removeprefix('UsageError: ')}")
        return [from_payload(payload) for payload in answer]

    if inputs is not None:
        specs(inputs)
    found, own = [], None
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
