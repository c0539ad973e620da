"""Benchmarks: the same work on every backend and beside it what it competes with, each in a process of its own.

    from k3seq import matrix
    from k3seq.bench import heats, run

    backends = matrix.load().backends
    report = run("quick", heats("quick", backends))

Nothing here imports keras or a framework but `subjects.py` and `peers/`, which a row's process imports.
"""

from k3seq.bench.measure import run
from k3seq.bench.noise import Change, compare, shift
from k3seq.bench.suites import SUITES, heats
from k3seq.bench.work import Report, Row, Work

__all__ = ["SUITES", "Change", "Report", "Row", "Work", "compare", "heats", "run", "shift"]
