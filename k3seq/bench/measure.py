"""Measures groups of rows: one process per row, warmed up in turn, then rounds over all rows. Imports no keras.

A round measures every row once, and every second round goes from the last row to the first, so that a slow phase of the machine
affects all rows alike. One process computes at a time; the others wait.
"""

import os
import platform
import statistics
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor

from k3seq.bench.work import Report, Row, Work
from k3seq.runtime import matrix as matrix_file
from k3seq.runtime.workers import Failure, Worker

WORKER = "k3seq.bench.worker"
IMPORTS = 2  # processes that import their framework at a time, before anything is timed
MAX_STEPS = 200  # of a round
# A program that comes from a cache on the disk was not compiled.
ENVIRONMENT = {"JAX_ENABLE_COMPILATION_CACHE": "false"}


class Group:
    """Rows that are measured together.

    Args:
        rows: the rows.
        rounds: number of rounds.
        seconds: time of the steps per row and round.
        steps: number of steps per row and round instead of `seconds`, or None.
        timeout: maximum seconds for the preparation or one round of a row.
        on_event: called with (event, row) during the measurement.
        worker: makes an object with `request` and `close`, such as `k3seq.runtime.workers.Worker`.
        backends: the matrix; None loads it.
    """

    def __init__(
        self,
        rows: list[Row],
        rounds: int,
        seconds: float,
        steps: int | None,
        timeout: float,
        on_event: Callable[[str, Row], None],
        worker: Callable[..., Worker] = Worker,
        backends: matrix_file.Matrix | None = None,
    ):
        self.rows, self.rounds, self.seconds, self.steps = rows, rounds, seconds, steps
        self.timeout, self.on_event, self.worker = timeout, on_event, worker
        self.matrix = backends
        self.workers = {}

    def run(self) -> None:
        """Fills the rows in. Ctrl-C ends it and keeps the rounds that were measured."""
        try:
            long = [row for row in self.rows if row.work.kind != "startup"]
            for row in self.rows:
                self.workers[id(row)] = self.worker(row.work.backend, ENVIRONMENT, self.matrix)
            self._import(long)
            for row in long:
                if row.status == "waiting":
                    self._prepare(row)
            for number in range(self.rounds):
                for row in self.rows[:: -1 if number % 2 else 1]:
                    if row.status in ("waiting", "interrupted"):
                        self._fresh(row) if row.work.kind == "startup" else self._round(row)
            for row in self.rows:
                if row.status == "interrupted":
                    row.status = "measured"
        finally:
            for worker in self.workers.values():
                worker.close()

    def _request(self, row, function, payload):
        return self.workers[id(row)].request(f"{WORKER}:{function}", payload, self.timeout)

    def _import(self, rows):
        def load(row):
            self.on_event("importing", row)
            return self._request(row, "load", {"maker": row.work.target})

        with ThreadPoolExecutor(IMPORTS) as pool:
            for row, answer in zip(rows, pool.map(load, rows), strict=True):
                if isinstance(answer, Failure):
                    self._failed(row, answer)
                elif "missing" in answer:
                    self._failed(row, Failure("missing", f"Expected the package {answer['missing']}. Received: not installed"))
                else:
                    row.imported = answer["imported"]

    def _prepare(self, row):
        self.on_event("first steps", row)
        found = self._request(row, "prepare", {"maker": row.work.target, **row.work.payload()})
        if isinstance(found, Failure):
            return self._failed(row, found)
        row.imported = row.imported or found["imported"]
        for name in ("built", "first", "base", "first_peak", "losses", "about"):
            setattr(row, name, found[name])
        row.tokens = row.work.tokens if found["tokens"] is None else found["tokens"]
        row.steps = self.steps or max(1, min(MAX_STEPS, round(self.seconds / max(found["step"], 1e-6))))
        return found

    def _round(self, row):
        self.on_event("measuring", row)
        found = self._request(row, "take", {"steps": row.steps})
        if isinstance(found, Failure):
            return self._failed(row, found)
        row.peak = max(row.peak or 0, found["peak"])
        row.cpu_rounds.append(statistics.median(found["cpu"]))
        self._add(row, statistics.median(found["times"]))

    def _fresh(self, row):
        """Measures a start: a new process until its first step is done."""
        self.on_event("starting", row)
        self.workers[id(row)].close()
        began = time.perf_counter()
        found = self._prepare(row)
        if found:
            row.steps, row.peak = 1, row.first_peak
            # The warm-up steps after the first are not part of a start.
            self._add(row, time.perf_counter() - began - found["warm"])

    def _add(self, row, seconds):
        row.rounds.append(seconds)
        row.status = "interrupted"  # until the last round is done
        self.on_event("measured", row)

    def _failed(self, row, failure):
        row.status = "missing" if failure.kind == "missing" else "failed"
        row.message, row.stderr = failure.message, failure.stderr
        self.workers[id(row)].close()
        self.on_event(row.status, row)


def run_benchmark(
    name: str,
    groups: Sequence[Sequence[Work]],
    rounds: int = 5,
    seconds: float = 0.5,
    steps: int | None = None,
    timeout: float = 600.0,
    on_event: Callable[[str, Row, Report], None] | None = None,
    worker: Callable[..., Worker] = Worker,
    backends: matrix_file.Matrix | None = None,
) -> Report:
    """Measures groups one after another.

    Args:
        name: name of the suite.
        groups: lists of `Work`.
        rounds: number of rounds, at least 1.
        seconds, steps, timeout, worker, backends: as in `Group`.
        on_event: called with (event, row, report) during the measurement.

    Returns:
        A `Report`. After Ctrl-C it is `interrupted` and holds the rounds that were measured.
    """
    backends = backends or matrix_file.load()
    report = Report(name, [Row(work) for group in groups for work in group], rounds)
    began, rows = time.monotonic(), iter(report.rows)
    report.machine = {
        "platform": platform.platform(),
        "processor": processor(),
        "cores": os.cpu_count(),
        "threads": os.environ.get("OMP_NUM_THREADS"),
        "load_before": os.getloadavg()[0],
    }

    def report_event(event, row):
        if on_event:
            on_event(event, row, report)

    try:
        for group in groups:
            own = [next(rows) for _ in group]
            Group(own, rounds, seconds, steps, timeout, report_event, worker, backends).run()
    except KeyboardInterrupt:
        report.interrupted = True
    report.machine["load_after"] = os.getloadavg()[0]
    report.seconds = time.monotonic() - began
    return report


def processor() -> str:
    """The name of the processor, as the system reports it."""
    try:
        with open("/proc/cpuinfo", encoding="utf-8") as lines:
            return next(line.partition(":")[2].strip() for line in lines if line.startswith("model name"))
    except (OSError, StopIteration):
        return platform.processor() or platform.machine()
