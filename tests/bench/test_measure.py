"""Rounds over rows: who is asked when, what a row holds in the end, and what a failure or Ctrl-C leaves."""

import sys

import pytest

from bench.fakes import FAILED, PREPARED, Script, work
from k3seq.bench import run_benchmark
from k3seq.bench.worker import load, prepare, take

pytestmark = pytest.mark.once


def measured(script, *groups, rounds=3, **options):
    return run_benchmark(
        "suite", [list(group) for group in groups or [[work("one"), work("two")]]], rounds=rounds, worker=script, **options
    )


def times(*values):
    return [{"times": [value], "cpu": [value / 2], "peak": 2000} for value in values]


def test_rounds_go_over_all_rows_and_every_second_one_backwards():
    script = Script()
    measured(script)
    assert [number for number, name in script.asked if name == "take"] == [0, 1, 1, 0, 0, 1]
    assert all(script.closed)


def test_every_row_is_warm_before_the_first_round():
    script = Script()
    measured(script)
    names = [name for _, name in script.asked]
    assert names == ["load", "load", "prepare", "prepare", *["take"] * 6]


def test_groups_are_measured_one_after_another():
    script = Script()
    measured(script, [work("one")], [work("two")], rounds=2)
    assert [number for number, _ in script.asked] == [0, 0, 0, 0, 1, 1, 1, 1]


def test_a_row_holds_the_median_of_its_rounds_and_their_range():
    report = measured(Script({"take": times(0.3, 0.1, 0.2)}), [work(tokens=50.0)])
    [row] = report.rows
    assert (row.status, row.rounds, row.median, row.spread) == ("measured", [0.3, 0.1, 0.2], 0.2, (0.1, 0.3))
    assert (row.cpu, row.tokens_per_second, row.memory, row.first) == (0.1, 250.0, 1000, 2.0)
    assert report.ok and report.rounds == 3


def test_a_round_has_the_steps_that_fill_its_seconds():
    for asked, taken in (({"seconds": 0.5}, 5), ({"seconds": 0.001}, 1), ({"steps": 7}, 7), ({"seconds": 1e6}, 200)):
        script = Script()
        measured(script, [work()], rounds=1, **asked)
        assert script.steps == [taken]


@pytest.mark.parametrize("when", ["load", "prepare", "take"])
def test_a_row_that_fails_keeps_why_and_the_others_go_on(when):
    report = measured(Script({when: FAILED}))
    bad, good = report.rows
    assert (bad.status, bad.message, bad.stderr) == ("failed", FAILED.message, "Killed\n")
    assert good.status == "measured" and len(good.rounds) == 3
    assert not report.ok and measured(Script()).ok


def test_a_peer_that_is_not_installed_is_missing_and_no_failure():
    report = measured(Script({"load": {"missing": "transformers"}}))
    assert report.rows[0].status == "missing" and report.ok
    assert report.rows[0].message == "Expected the package transformers. Received: not installed"


def test_a_run_of_missing_rows_alone_is_not_ok():
    assert not measured(Script({"load": {"missing": "a"}}, {"load": {"missing": "a"}})).ok


def test_ctrl_c_leaves_what_was_measured():
    script = Script({"take": [*times(0.1), KeyboardInterrupt()]})
    report = measured(script)
    assert report.interrupted and all(script.closed)
    assert [(row.status, len(row.rounds)) for row in report.rows] == [("interrupted", 1), ("interrupted", 2)]
    assert not measured(Script()).interrupted


def test_a_start_is_measured_in_a_new_process_each_round():
    script = Script()
    start = work()
    object.__setattr__(start, "kind", "startup")
    report = measured(script, [start], rounds=2)
    assert [name for _, name in script.asked] == ["prepare", "prepare"]
    assert report.rows[0].steps == 1 and len(report.rows[0].rounds) == 2


def test_a_missing_package_is_reported_and_any_other_import_error_is_raised(monkeypatch):
    monkeypatch.setitem(sys.modules, "transformers", None)  # importing it raises ModuleNotFoundError
    assert load({"maker": "k3seq.bench.peers.marian:decode"}) == {"missing": "transformers"}
    with pytest.raises(ModuleNotFoundError, match="no_such_module"):
        load({"maker": "k3seq.bench.no_such_module:train"})


class Counter:
    """A subject that counts its steps; its loss is 1 over them."""

    def __init__(self):
        self.steps, self.waited = 0, 0

    def running(self, payload):
        from k3seq.bench.running import Running

        def step():
            self.steps += 1
            return self.steps

        def wait(value):
            self.waited += 1

        return Running(step, wait, lambda value: 1 / value, {"backend": "none"})


subject = Counter()
maker = subject.running


def test_the_worker_takes_warm_steps_apart_and_waits_for_every_step():
    subject.__init__()
    ticks = iter(range(100))
    found = prepare({"maker": f"{__name__}:maker"}, clock=lambda: next(ticks))
    assert found["losses"] == [1, 1 / 2, 1 / 3] and subject.waited == 3
    assert (found["built"], found["first"], found["step"], found["warm"]) == (1, 1, 1, 2)
    taken = take({"steps": 4}, clock=lambda: next(ticks))
    assert subject.steps == subject.waited == 7
    assert list(taken["times"]) == [1, 1, 1, 1] and len(taken["cpu"]) == 4 and taken["peak"] > 0
    assert set(PREPARED) == set(found)
