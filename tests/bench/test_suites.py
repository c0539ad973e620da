"""The suites hold every backend and jit mode, and peers on the same batch; parity marks their rows."""

from dataclasses import replace

import numpy as np
import pytest

from bench.fakes import BACKENDS, MATRIX, row, work
from k3seq.bench import SUITES, groups, problems, row_parity
from k3seq.bench.running import Weights
from k3seq.errors import UsageError
from k3seq.parity.case import Case, Spec

pytestmark = pytest.mark.once

ALL = {name: [w for group in groups(name, BACKENDS) for w in group] for name in SUITES}


@pytest.mark.parametrize("name", SUITES)
def test_a_suite_has_every_backend_and_keys_of_its_own(name):
    works = ALL[name]
    assert {w.backend for w in works if w.implementation in ("k3seq", "whole loss")} == set(BACKENDS)
    assert len({w.key for w in works}) == len(works)


@pytest.mark.parametrize("name", ["train", "decode", "layers", "startup"])
def test_a_suite_runs_every_jit_mode_of_the_matrix(name):
    found = {(w.backend, w.jit) for w in ALL[name] if w.implementation == "k3seq"}
    assert found == {(backend, jit) for backend, entry in BACKENDS.items() for jit in entry.jit}
    only = {(w.backend, w.jit) for group in groups(name, BACKENDS, "no jit") for w in group if w.implementation == "k3seq"}
    assert only == {pair for pair in found if not pair[1]} != found


def test_rows_of_a_problem_get_the_same_batch():
    for name in ("train", "layers"):
        first = {}
        for w in ALL[name]:
            batch = w.case.batch(0)
            other = first.setdefault(w.problem, batch)
            for part in ("inputs", "call", "labels", "sample_weight"):
                for one, two in zip(problems.arrays(batch[part]), problems.arrays(other[part]), strict=True):
                    np.testing.assert_array_equal(one, two)
            assert w.case.name == w.problem


def test_training_is_compared_with_stock_keras_and_native_loops():
    rows = {(w.implementation, w.backend) for w in ALL["train"] if w.problem == "lstm-v500"}
    assert rows == {
        *((implementation, backend) for implementation in ("k3seq", "keras") for backend in BACKENDS),
        ("plain", "jax"),
        ("plain", "torch"),
    }


def test_a_padded_problem_has_the_sizes_of_the_other_and_counts_its_tokens():
    plain, padded = (next(w for w in ALL["train"] if w.problem == name) for name in ("lstm-v500", "lstm-v500 padded"))
    whole, part = plain.case.inputs, padded.case.inputs
    assert whole["source"].shape == part["source"].shape == (64, 30)
    assert plain.tokens == 64 * 20
    assert padded.tokens == padded.case.sample_weight.sum() < 0.7 * plain.tokens
    lengths = part["source_lengths"]
    assert lengths.min() >= 1 and lengths.max() <= 30
    for ids, end in zip(part["source"], lengths, strict=True):
        assert (ids[:end] > 0).all() and (ids[end:] == 0).all()
    assert ((part["target"] > 0) == (padded.case.sample_weight > 0)).all()


def test_an_unknown_suite_is_refused():
    with pytest.raises(UsageError, match="Expected a suite out of quick, train, .*Received: fast"):
        groups("fast", BACKENDS)


def test_a_backend_that_is_not_asked_for_has_no_rows():
    for name in SUITES:
        assert {w.backend for group in groups(name, {"torch": BACKENDS["torch"]}) for w in group} == {"torch"}


def test_weights_depend_on_shape_and_number_alone():
    one, two = Weights(), Weights()
    first = one.draw(3, 4)
    assert not np.array_equal(first, one.draw(3, 4))
    two.draw(5, 2)
    np.testing.assert_array_equal(two.draw(3, 4), first)
    assert not np.array_equal(Weights(1).draw(3, 4), first)
    assert abs(Weights().draw(400, 300).std() * 20 - 1) < 0.01  # variance 1 over 400 inputs


def test_a_users_case_counts_its_tokens():
    backends = {"torch": BACKENDS["torch"]}
    case = Case("own", "a:b", {}, {"source": Spec((8, 20), "int32", 0, 9)})
    [one] = problems.own(case, "train", backends, "first")
    assert (one.tokens, one.implementation, one.problem, one.backend) == (160.0, "own", "own", "torch")
    weight = np.array([[1, 1, 0], [0.5, 0, 0]], "float32")
    [two] = problems.own(replace(case, sample_weight=weight), "train", backends, "first")
    assert two.tokens == 3.0
    assert problems.resized(case, 64).batch(0)["inputs"]["source"].shape == (64, 20)
    with pytest.raises(UsageError, match="as specs for --batch-size. Received: an array of shape"):
        problems.resized(replace(case, sample_weight=weight), 64)
    with pytest.raises(UsageError, match="Expected inputs of own. Received: none"):
        problems.own(Case("own", "a:b"), "train", backends, "first")


def parity_of(*losses):
    rows = [row((1.0,), implementation=str(i), losses=values) for i, values in enumerate(losses)]
    row_parity.by_losses(rows, MATRIX)
    return [one.parity for one in rows]


def test_rows_are_compared_with_the_median_of_their_problem():
    right, near, wrong = [3.0, 2.0, 1.0], [3.0, 2.0, 1.0 + 5e-5], [3.0, 2.0, 1.01]
    assert parity_of(right, right, near) == ["equal", "equal", "equal"]
    assert parity_of(right, wrong, right) == ["equal", "differs", "equal"]
    assert parity_of(right, wrong) == ["differs", "differs"]  # two rows do not show which one is wrong
    assert parity_of([float("nan")] * 3, right, right)[0] == "differs"


def test_a_row_alone_is_not_called_equal():
    assert parity_of([3.0, 2.0, 1.0]) == [""]
    rows = [row((1.0,), losses=[1.0], problem=name) for name in ("one", "two")]
    row_parity.by_losses(rows, MATRIX)
    assert [one.parity for one in rows] == ["", ""]


def test_a_work_says_who_makes_it():
    assert work().target == "k3seq.bench.subjects:train"
    assert replace(work(), kind="startup").target == "k3seq.bench.subjects:train"
    assert work(maker="a.b:c").target == "a.b:c"
