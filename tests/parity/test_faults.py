"""Negative controls: a fault planted on one backend is caught by its check, and the layer that holds it is named."""

import pytest

from k3seq.parity import suite
from k3seq.parity.case import Case, Spec
from k3seq.runtime import matrix
from parity.faulty import BACKEND, FAULTS, B, S, V

pytestmark = pytest.mark.once

OTHER = "tensorflow"  # has float64, and compiles nothing here
INPUTS = {"tokens": Spec((B, S), "int32", 0, V), "lengths": Spec((B,), "int32", 1, S + 1)}


def case(fault, checks):
    return Case(
        fault, "parity.faulty:Victim", {"fault": fault}, INPUTS, seed=3, checks=checks, decode="parity.faulty:decode", batches=1
    )


@pytest.fixture(scope="module")
def pool():
    for name in (OTHER, BACKEND):
        if matrix.installed(name) is None:
            pytest.skip(f"backend {name} is not installed")
    with suite.Pool([OTHER, BACKEND]) as pool:
        yield pool


@pytest.fixture(scope="module")
def report(pool):
    return suite.run_parity([case(fault, (check,)) for fault, (check, _) in FAULTS.items()], pool=pool)


@pytest.mark.parametrize("fault", FAULTS)
def test_a_planted_fault_is_caught_and_its_layer_named(report, fault):
    check, layer = FAULTS[fault]
    rows = [row for row in report.rows if row.case == fault and row.check == check]
    assert any(row.verdict in ("differs", "failed") for row in rows), rows
    if layer:
        named = [row.where.split(":")[0].split(" ")[0].split("/") for row in rows if row.verdict == "differs"]
        assert all(layer == path[-1] or layer == path[-2] for path in named), [row.where for row in rows]


def test_without_a_fault_every_check_passes(pool):
    checks = tuple(dict.fromkeys(check for check, _ in FAULTS.values()))
    report = suite.run_parity([case("none", checks)], pool=pool)
    assert not [row for row in report.rows if row.verdict != "equal"]
    assert report.ok and {row.check for row in report.rows} == set(checks)


def test_float64_tells_which_backend_is_off(report):
    [row] = [row for row in report.rows if row.case == "two gates swapped"]
    assert row.judge.startswith(f"float64 ({OTHER}): off {BACKEND}") and f"near {OTHER}" in row.judge
