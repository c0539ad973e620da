"""Negative controls: a fault planted on one backend is found by its check, and the layer that has it is named."""

import pytest

from k3seq.parity import Case, Spec, judge, run_parity
from parity.faulty_model import BACKEND, FAULTS, B, S, V

pytestmark = pytest.mark.once

OTHER = "tensorflow"  # has float64, and compiles least here
INPUTS = {"tokens": Spec((B, S), "int32", 0, V), "lengths": Spec((B,), "int32", 1, S + 1)}


def case(fault, checks):
    options = {"checks": checks, "decode": "parity.faulty_model:decode", "batches": 1, "steps": {"sgd": 5, "adam": 5}}
    return Case(fault, "parity.faulty_model:FaultyModel", {"fault": fault}, INPUTS, seed=3, **options)


@pytest.fixture(scope="module")
def pool(workers_of):
    return workers_of(OTHER, BACKEND)


@pytest.fixture(scope="module")
def report(pool):
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(judge, "blame", lambda *arguments: "")  # one test below has the float64 reference
        return run_parity([case(fault, (check,)) for fault, (check, _) in FAULTS.items()], [OTHER, BACKEND], pool=pool)


@pytest.mark.parametrize("fault", FAULTS)
def test_a_planted_fault_is_found_and_its_layer_named(report, fault):
    check, layer = FAULTS[fault]
    rows = [row for row in report.rows if row.case == fault and row.check == check]
    assert any(row.verdict in ("differs", "failed") for row in rows), rows
    if layer:
        named = [row.where.split(":")[0].split(" ")[0].split("/") for row in rows if row.verdict == "differs"]
        assert all(layer == path[-1] or layer == path[-2] for path in named), [row.where for row in rows]


def test_without_a_fault_every_check_passes(pool):
    checks = tuple(dict.fromkeys(check for check, _ in FAULTS.values()))
    report = run_parity([case("none", checks)], [OTHER, BACKEND], pool=pool)
    assert not [row for row in report.rows if row.verdict != "equal"]
    assert report.ok and {row.check for row in report.rows} == set(checks)


def test_the_float64_reference_names_the_wrong_backend(pool):
    [row] = run_parity([case("two gates swapped", ("forward",))], [OTHER, BACKEND], pool=pool).rows
    assert row.judge.startswith(f"float64 reference ({OTHER}): {BACKEND} differs by ") and f"; {OTHER} (" in row.judge
