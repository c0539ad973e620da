"""The suite on live workers: what is equal, what differs and where, and that no worker's failure ends the run."""

import pytest

from k3seq.errors import UsageError
from k3seq.parity import Case, Pool, Spec, resolve, run_parity
from k3seq.runtime import matrix as matrix_file
from parity.parts import ONE

pytestmark = pytest.mark.once

OTHER = "tensorflow"
X = Spec((2, 4, 3))


def case(how="", **options):
    return Case(how or "right", "parity.parts:factory", {"how": how}, X, **options)


@pytest.fixture(scope="module")
def pool():
    for name in (ONE, OTHER):
        if matrix_file.installed(name) is None:
            pytest.skip(f"backend {name} is not installed")
    with Pool([OTHER, ONE]) as workers:
        yield workers


@pytest.fixture(scope="module")
def right(pool):
    return run_parity([case()], pool=pool)


@pytest.fixture(scope="module")
def wrong(pool):
    return run_parity([case("wrong")], pool=pool, checks=["parameters", "forward", "gradients"])


def rows(report, check):
    return [row for row in report.rows if row.check == check]


def test_a_model_that_is_alike_passes_every_check(right):
    assert right.ok and right.failures() == []
    assert {row.check for row in right.rows if row.verdict == "equal"} == {
        *("parameters", "forward", "training", "gradients", "sgd", "adam", "slots", "files")
    }
    assert [row.pair for row in rows(right, "files")] == [(OTHER, ONE), (ONE, OTHER)]
    assert all(row.relative <= row.tolerance for row in rows(right, "sgd"))


def test_a_difference_on_one_backend_is_found_with_layer_step_and_row(wrong):
    [row] = rows(wrong, "forward")
    assert not wrong.ok and row.verdict == "differs" and row.pair == (OTHER, ONE)
    assert row.where.startswith("middle (Shift), step 2, row 0")
    assert row.relative > row.tolerance and row.absolute > 1e-3


def test_float64_says_which_backend_is_off(wrong):
    [row] = rows(wrong, "forward")
    assert row.judge.startswith(f"float64 ({OTHER}): off {ONE} ") and f"near {OTHER}" in row.judge


def test_a_check_that_the_fault_does_not_touch_stays_equal(wrong):
    assert [row.verdict for row in rows(wrong, "parameters")] == ["equal"]


@pytest.mark.parametrize("checks", [["parameters"], ["forward", "gradients"], ["parameters", "forward", "files", "jit"]])
def test_weights_that_do_not_pair_are_told_once_and_every_other_check_says_so(pool, checks):
    report = run_parity([case("more")], pool=pool, checks=checks)
    [row] = rows(report, "parameters")
    assert not report.ok and row.verdict == "differs" and row.where.endswith("middle/more") and "5 (27)" in row.message
    others = [check for check in checks if check != "parameters"]
    left_out = [row for row in report.rows if row.pair == (ONE,)]
    assert [(row.check, row.verdict) for row in left_out] == [(check, "skipped") for check in others]
    assert {row.message for row in left_out} <= {f"not compared: its weights cannot be paired with those of {OTHER}"}
    rest = [other.pair for other in report.rows if other not in left_out and other.check != "parameters"]
    assert rest == [(OTHER, OTHER)] * checks.count("jit")  # alone, it is compared with itself


def test_a_float64_run_that_fails_is_told(pool):
    [row] = run_parity([case("narrow")], pool=pool, checks=["forward"]).rows
    assert row.verdict == "differs" and row.where.startswith("middle (Shift), step 2")
    assert row.judge.startswith(f"float64 ({OTHER}): exception: RuntimeError") and "planted: float32 alone" in row.judge


@pytest.mark.parametrize("how, told", [("raises", "RuntimeError"), ("ends", "exit code 3")])
def test_a_worker_that_fails_is_a_row_with_its_stderr(pool, how, told):
    report = run_parity([case(how), case()], pool=pool, checks=["forward"], judge=False)
    [failed] = [row for row in report.rows if row.verdict == "failed"]
    [left_out] = [row for row in report.rows if row.case == how and row.check == "forward"]
    assert left_out.verdict == "skipped" and left_out.message == "not compared: it was not built here"
    assert failed.case == how and failed.pair == (ONE,) and told in failed.message
    assert failed.stderr or how == "ends"
    assert [row.verdict for row in report.rows if row.case == "right"] == ["equal"]  # the run went on
    assert not report.ok


def test_a_worker_that_hangs_is_a_row(pool):
    before, pool.timeout = pool.timeout, 4.0
    try:
        report = run_parity([case("waits")], pool=pool, checks=["forward"], judge=False)
    finally:
        pool.timeout = before
    [failed] = report.failures()
    assert failed.pair == (ONE,) and failed.message.startswith("timeout") and "parts.py" in failed.stderr


def test_a_missing_backend_is_a_row_and_a_failure_where_it_was_named(right):
    backends = {ONE: matrix_file.DEFAULT_BACKENDS[ONE], "absent": matrix_file.Backend("absent", "no_such", ("x",), "pip x")}
    with Pool(matrix=matrix_file.Matrix(backends=backends)) as pool:
        report, named = run_parity([case()], pool=pool), run_parity([case()], ["absent", ONE], pool=pool)
    missing = [row for row in report.rows if row.verdict == "missing"]
    assert [row.pair for row in missing] == [("absent",)] and "pip x" in missing[0].message
    assert not report.ok and not named.ok  # nothing was compared
    right.rows.append(missing[0])
    try:
        assert right.ok
        right.required = True
        assert not right.ok
    finally:
        right.rows.pop()
        right.required = False


@pytest.mark.parametrize("gap, verdict", [(1e-6, "tie"), (0.1, "differs")])
def test_tokens_that_part_where_two_scores_are_near_are_a_tie(pool, gap, verdict):
    told = Case(
        "chooser",
        "parity.parts:Chooser",
        {"gap": gap},
        {"source": Spec((2, 3), "int32", 1, 4)},
        checks=["decode"],
        decode={"max_steps": 3},
        tolerances={"decode": 1e-6},
    )
    report = run_parity([told], pool=pool)
    [row] = report.rows
    assert row.verdict == verdict and row.where == "tokens, step 0, row 0" and "margin 1.0e-04" in row.message
    assert report.ok == (verdict == "tie")


def test_targets_are_cases_lists_of_cases_and_factories(pool):
    assert [c.name for c in resolve(["parity.parts:CASE"], pool)] == ["plain"]
    assert [c.name for c in resolve(["parity.parts:CASES"], pool)] == ["plain", "second"]
    assert resolve(["parity.parts:told"], pool)[0].inputs == Spec((2, 3))
    assert resolve(["parity.parts:plain"], pool)[0].inputs == Spec((3, 5), "int32", high=7)
    given = resolve(["parity.parts:told"], pool, {"shape": [4, 5]})
    assert given[0].inputs == Spec((4, 5))
    assert [c.name for c in resolve(["LSTM*"], pool)][:2] == ["LSTM", "LSTM-states"]


@pytest.mark.parametrize(
    "target, told",
    [
        ("parity.parts:nothing", "nothing"),
        ("no_such_module:x", "no_such_module"),
        ("nopattern", "pattern"),
        ("parity.parts:Shift", "inputs"),
    ],
)
def test_a_target_that_is_not_there_is_refused(pool, target, told):
    with pytest.raises(UsageError, match=told):
        resolve([target], pool)


def test_wrong_usage_is_refused(pool):
    for wrong, told in (
        (lambda: run_parity([], pool=pool), "none"),
        (lambda: run_parity([case(), case()], pool=pool), "different names"),
        (lambda: run_parity([case()], checks=["forwards"], pool=pool), "forwards"),
        (lambda: run_parity([case()], ["jaxx"], pool=pool), "jaxx"),
        (lambda: run_parity([case()], dtypes=["float8"], pool=pool), "float8"),
    ):
        with pytest.raises(UsageError, match=told):
            wrong()
