"""The suite on live workers: what is equal, what differs and where; a failing worker does not end the run."""

import re

import pytest

from k3seq.errors import UsageError
from k3seq.parity import Case, Pool, Report, Row, Spec, resolve, run_parity
from k3seq.runtime import matrix as matrix_file
from parity.sample_layers import FAULTY_BACKEND

pytestmark = pytest.mark.once

OTHER = "tensorflow"
PAIR = [OTHER, FAULTY_BACKEND]
X = Spec((2, 4, 3))


def case(fault="", **options):
    return Case(fault or "right", "parity.sample_layers:model", {"fault": fault}, X, **options)


@pytest.fixture(scope="module")
def pool(workers_of):
    return workers_of(*PAIR)


@pytest.fixture(scope="module")
def right(pool):
    return run_parity([case(steps={"sgd": 5, "adam": 10})], PAIR, pool=pool)


@pytest.fixture(scope="module")
def wrong(pool):
    return run_parity([case("wrong")], PAIR, pool=pool, checks=["parameters", "forward", "gradients"])


def rows(report, check):
    return [row for row in report.rows if row.check == check]


def test_an_equal_model_passes_every_check(right):
    assert right.ok and right.failures() == []
    assert {row.check for row in right.rows if row.verdict == "equal"} == {
        *("parameters", "forward", "training", "gradients", "sgd", "adam", "slots", "files")
    }
    assert [row.pair for row in rows(right, "files")] == [(OTHER, FAULTY_BACKEND), (FAULTY_BACKEND, OTHER)]
    assert all(row.relative <= row.tolerance for row in rows(right, "sgd"))


def test_a_difference_on_one_backend_is_found_with_layer_step_and_row(wrong):
    [row] = rows(wrong, "forward")
    assert not wrong.ok and row.verdict == "differs" and row.pair == tuple(PAIR)
    assert row.where.startswith("middle (Shift), step 2, row 0")
    assert row.relative > row.tolerance and row.absolute > 1e-3


def test_the_float64_reference_names_the_wrong_backend(wrong):
    [row] = rows(wrong, "forward")
    assert re.fullmatch(rf"float64 reference \({OTHER}\): {FAULTY_BACKEND} differs by \S+; {OTHER} \(\S+\) agrees", row.judge)


def test_a_check_without_the_fault_is_equal(wrong):
    assert [row.verdict for row in rows(wrong, "parameters")] == ["equal"]


@pytest.mark.parametrize("checks", [["parameters"], ["forward", "gradients"], ["parameters", "forward", "files", "jit"]])
def test_weights_that_do_not_pair_are_one_row_and_other_checks_are_skipped(pool, checks):
    report = run_parity([case("more")], PAIR, pool=pool, checks=checks)
    [row] = rows(report, "parameters")
    assert not report.ok and row.verdict == "differs" and row.where.endswith("middle/more") and "5 (27)" in row.message
    others = [check for check in checks if check != "parameters"]
    left_out = [row for row in report.rows if row.pair == (FAULTY_BACKEND,)]
    assert [(row.check, row.verdict) for row in left_out] == [(check, "skipped") for check in others]
    assert {row.message for row in left_out} <= {f"not compared: its weights cannot be paired with those of {OTHER}"}
    rest = [other.pair for other in report.rows if other not in left_out and other.check != "parameters"]
    assert rest == [(OTHER, OTHER)] * checks.count("jit")  # a single backend is compared with itself


def test_a_failed_float64_run_is_reported(pool):
    [row] = run_parity([case("wrong-float32")], PAIR, pool=pool, checks=["forward"]).rows
    assert row.verdict == "differs" and row.where.startswith("middle (Shift), step 2")
    assert f"float64 run on {OTHER} failed: exception: RuntimeError" in row.judge and "planted: float32 only" in row.judge
    assert "\x1b" not in row.judge  # Keras prints its messages in bold


@pytest.mark.parametrize("fault, message", [("raises", "RuntimeError"), ("ends", "exit code 3")])
def test_a_worker_that_fails_is_a_row_with_its_stderr(pool, fault, message):
    report = run_parity([case(fault), case()], PAIR, pool=pool, checks=["forward"], judge=False)
    [failed] = [row for row in report.rows if row.verdict == "failed"]
    [left_out] = [row for row in report.rows if row.case == fault and row.check == "forward"]
    assert left_out.verdict == "skipped" and left_out.message == "not compared: the case failed to build here"
    assert failed.case == fault and failed.pair == (FAULTY_BACKEND,) and message in failed.message
    assert failed.stderr or fault == "ends"
    assert "\x1b" not in failed.message + failed.stderr
    assert [row.verdict for row in report.rows if row.case == "right"] == ["equal"]  # the run went on
    assert not report.ok


def test_a_worker_that_hangs_is_a_row(pool):
    before, pool.timeout = pool.timeout, 2.0
    try:
        report = run_parity([case("waits")], PAIR, pool=pool, checks=["forward"], judge=False)
    finally:
        pool.timeout = before
    [failed] = report.failures()
    assert failed.pair == (FAULTY_BACKEND,) and failed.message.startswith("timeout") and "sample_layers.py" in failed.stderr


def test_a_missing_backend_is_a_row_and_a_failure_where_it_was_named():
    absent = matrix_file.Backend("absent", "no_such", ("x",), "pip x")
    backends = {FAULTY_BACKEND: matrix_file.DEFAULT_BACKENDS[FAULTY_BACKEND], "absent": absent}
    with Pool(matrix=matrix_file.Matrix(backends=backends)) as pool:
        report, named = run_parity([case()], pool=pool), run_parity([case()], ["absent", FAULTY_BACKEND], pool=pool)
    missing = [row for row in report.rows if row.verdict == "missing"]
    assert [row.pair for row in missing] == [("absent",)] and "pip x" in missing[0].message
    assert not report.ok and not named.ok  # nothing was compared
    equal = Row("c", "forward", ("jax", "torch"), "equal")
    assert Report([equal, *missing]).ok and not Report([equal, *missing], required=True).ok


@pytest.mark.parametrize("gap, verdict", [(1e-6, "tie"), (0.1, "differs")])
def test_tokens_that_differ_where_two_scores_are_near_are_a_tie(pool, gap, verdict):
    chooser = Case(
        "chooser",
        "parity.sample_layers:Chooser",
        {"gap": gap},
        {"source": Spec((2, 3), "int32", 1, 4)},
        checks=["decode"],
        decode={"max_steps": 3},
        tolerances={"decode": 1e-6},
    )
    report = run_parity([chooser], PAIR, pool=pool)
    [row] = report.rows
    assert row.verdict == verdict and row.where == "tokens, step 0, row 0" and "margin 1.0e-04" in row.message
    assert report.ok == (verdict == "tie")


def test_targets_are_cases_lists_of_cases_and_factories(pool):
    assert [c.name for c in resolve(["parity.sample_layers:CASE"], pool)] == ["dense"]
    assert [c.name for c in resolve(["parity.sample_layers:CASES"], pool)] == ["dense", "embedded"]
    assert resolve(["parity.sample_layers:dense"], pool)[0].inputs == Spec((2, 3))
    assert resolve(["parity.sample_layers:embedded"], pool)[0].inputs == Spec((3, 5), "int32", high=7)
    given = resolve(["parity.sample_layers:dense"], pool, {"shape": [4, 5]})
    assert given[0].inputs == Spec((4, 5))
    assert [c.name for c in resolve(["LSTM*"], pool)][:2] == ["LSTM", "LSTM-states"]


@pytest.mark.parametrize(
    "target, message",
    [
        ("parity.sample_layers:nothing", "Expected package.module:name .*Received: parity.sample_layers:nothing"),
        ("no_such_module:x", "No module named 'no_such_module'"),
        (":x", "Received: :x"),
        ("nopattern", "pattern"),
        ("parity.sample_layers:Shift", "inputs"),
        ("parity.sample_layers:is_faulty", "to return a Keras layer or model. Received: bool$"),
    ],
)
def test_an_unknown_target_is_refused_in_one_line(pool, target, message):
    with pytest.raises(UsageError, match=message) as caught:
        resolve([target], pool)
    assert "\n" not in str(caught.value)


def test_a_case_with_a_misspelt_factory_is_refused_before_it_runs(pool):
    with pytest.raises(UsageError, match="Received: parity.sample_layers:modle .module .* has no attribute 'modle'"):
        run_parity([case(), Case("misspelt", "parity.sample_layers:modle", inputs=X)], PAIR, pool=pool)


@pytest.mark.parametrize(
    "inputs", [3, "x", {}, {"shape": "x"}, {"shape": [-1]}, {"shape": [2, 5], "dtype": "nope"}, {"a": {"shape": [2]}, "b": 1}]
)
def test_wrong_inputs_are_refused_in_one_line(pool, inputs):
    with pytest.raises(UsageError, match="^Expected (inputs|shape|dtype) as ") as caught:
        resolve(["parity.sample_layers:Shift"], pool, inputs)
    assert "\n" not in str(caught.value)


def test_one_backend_is_refused(pool):
    with pytest.raises(UsageError, match="Expected at least two backends to compare. Received: torch$"):
        run_parity([case()], ["torch"], pool=pool)


def test_wrong_usage_is_refused(pool):
    for wrong, message in (
        (lambda: run_parity([], pool=pool), "none"),
        (lambda: run_parity([case(), case()], pool=pool), "different names"),
        (lambda: run_parity([case()], checks=["forwards"], pool=pool), "forwards"),
        (lambda: run_parity([case()], ["jaxx", "torch"], pool=pool), "jaxx"),
        (lambda: run_parity([case()], dtypes=["float8"], pool=pool), "float8"),
    ):
        with pytest.raises(UsageError, match=message):
            wrong()
