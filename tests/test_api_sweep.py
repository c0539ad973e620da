"""The public API with arguments of every type and range: one clear line or a result, and the same on every backend."""

import secrets

import pytest

from k3seq.runtime import matrix as matrix_file
from k3seq.runtime.workers import Failure, launch
from sweeps import api

pytestmark = pytest.mark.once


def ask(matrix, function, payload):
    """{backend: result} of a function of `sweeps.api` on every installed backend that trains."""
    names = [name for name in matrix.training if matrix_file.installed(name, matrix)]
    found = {name: launch(name, f"sweeps.api:{function}", payload, timeout=900) for name in names}
    assert not [f"{name}: {result}" for name, result in found.items() if isinstance(result, Failure)]
    return found


def clear(text):
    """Whether an outcome is a result or one line of k3seq."""
    return not text.startswith(("raised", "several lines"))


def test_a_wrong_batch_gives_one_line_and_the_same_on_every_backend(matrix):
    found = ask(matrix, "batches", None)
    first = next(iter(found.values()))
    assert [f"{name}: {result}" for name, result in first.items() if not clear(result)] == []
    for backend, results in found.items():
        assert {name: text for name, text in results.items() if text != first[name]} == {}, backend
    rights = {
        first[f"{name}, {way}"] for name in ("right", "weight (b,)", "weight (b, 1)", "weight (b, t)") for way in api.WAYS
    }
    assert len(rights) == 1 and first["label above, fit"].startswith("UsageError")


@pytest.mark.heavy
def test_random_arguments_give_one_line_or_a_result_and_the_same_on_every_backend(matrix, capsys):
    payload = {"seed": secrets.randbelow(2**32), "count": 1500}
    found = ask(matrix, "outcomes", payload)
    first = next(iter(found.values()))
    with capsys.disabled():
        made = sum(outcome == "made" for _, outcome in first)
        print(f"\nAPI sweep: seed {payload['seed']}, {len(first)} calls, {made} made something, {len(found)} backends")
    assert sorted({f"{call} -> {outcome}" for call, outcome in first if not clear(outcome)}) == []
    for backend, outcomes in found.items():
        assert [one for one, other in zip(outcomes, first, strict=True) if one != other] == [], backend


def test_the_sweep_sees_what_is_not_clear():
    assert not clear(api.outcome("k3seq.data:CharTokenizer", {"symbol": ["a"]}))  # an unknown argument: Python's own TypeError
    assert clear(api.outcome("k3seq.data:CharTokenizer", {"symbols": ["a", "a"]}))
    assert api.outcome("k3seq.data:CharTokenizer", {"symbols": ["a"]}) == "made"
