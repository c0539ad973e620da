"""Benchmarks: the same work on every backend and beside it what it competes with, each in a process of its own.

    from k3seq.runtime import matrix
    from k3seq.bench import groups, run_benchmark

    backends = matrix.load().training
    report = run_benchmark("quick", groups("quick", backends))

Nothing here imports keras or a framework but `subjects.py` and `peers/`, which a row's process imports.
"""

from k3seq.bench.measure import run_benchmark
from k3seq.bench.noise import Change, compare, shift
from k3seq.bench.suites import SUITES, groups
from k3seq.bench.work import Report, Row, Work

__all__ = ["SUITES", "Change", "Report", "Row", "Work", "compare", "groups", "run_benchmark", "shift"]
