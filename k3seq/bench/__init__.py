"""Benchmarks: the same work on every backend and by its peers, each in its own process.

    from k3seq.runtime import matrix
    from k3seq.bench import groups, run_benchmark

    backends = matrix.load().training
    report = run_benchmark("quick", groups("quick", backends))

Only `subjects.py` and `peers/` import keras or a framework. The process of a row imports them.
"""

from k3seq.bench.measure import run_benchmark
from k3seq.bench.noise import Change, compare, shift
from k3seq.bench.suites import SUITES, groups
from k3seq.bench.work import Report, Row, Work

__all__ = ["SUITES", "Change", "Report", "Row", "Work", "compare", "groups", "run_benchmark", "shift"]
