"""The status of a divergence, for answers that are written here; and the command on two backends."""

import json

import pytest

from k3seq.commands import divergences as command
from k3seq.errors import UsageError
from k3seq.parity import divergences
from k3seq.parity.divergences.known import Divergence
from k3seq.runtime import matrix
from k3seq.runtime.workers import Failure

pytestmark = pytest.mark.once

ENTRY = Divergence(
    "ties", "Ties", "fault", ("torch",), "s", "c", "a", "k3seq.parity.divergences.numbers:ties_of_top_k", {"keras": "1"}
)
EVERYWHERE = Divergence("draws", "Draws", "difference", ("jax", "torch"), "s", "c", "a", "m:f", {"keras": "1"})


def answer(present=None, cured=None, value=None, control_value=None):
    return {"seen": "s", "control": "c", "present": present, "cured": cured, "value": value, "control_value": control_value}


def statuses(entry, **answers):
    return {name: found["status"] for name, found in divergences.assess(entry, answers).items()}


@pytest.mark.parametrize("present, listed, unlisted", [(True, "present", "new"), (False, "gone", "absent")])
def test_a_listed_and_an_unlisted_backend_have_different_statuses(present, listed, unlisted):
    given = {"torch": answer(present, True), "jax": answer(present, True)}
    assert statuses(ENTRY, **given) == {"torch": listed, "jax": unlisted}


def test_a_reproducer_whose_control_fails_too_is_broken():
    assert statuses(ENTRY, torch=answer(True, False)) == {"torch": "broken"}


def test_a_crash_is_one_broken_answer():
    found = divergences.assess(ENTRY, {"torch": Failure("crash", "The process ended"), "jax": answer(False, True)})
    assert found["torch"] == {"status": "broken", "seen": "crash: The process ended", "control": ""}
    assert found["jax"]["status"] == "absent"


@pytest.mark.parametrize(
    "jax, torch, status",
    [((1, 0), (2, 0), "present"), ((1, 0), (1, 0), "gone"), ((1, 0), (2, 3), "broken")],
    ids=["other values", "the same value", "controls differ"],
)
def test_values_are_compared_between_backends(jax, torch, status):
    given = {"jax": answer(value=jax[0], control_value=jax[1]), "torch": answer(value=torch[0], control_value=torch[1])}
    assert statuses(EVERYWHERE, **given) == {"jax": status, "torch": status}


def test_one_backend_alone_cannot_show_that_a_difference_is_gone():
    assert statuses(EVERYWHERE, torch=answer(value=1, control_value=0)) == {"torch": "not applicable"}


def test_an_unknown_id_is_refused_with_the_choices():
    with pytest.raises(UsageError, match="Expected a divergence out of .*top-k-ties.*Received: top-k-tie$"):
        divergences.choose(["top-k-tie"])


def test_the_command_compares_two_live_backends(matrix, capsys):
    pair = ["jax", "torch"]
    if not all(installed(name, matrix) for name in pair):
        pytest.skip("jax and torch are not both installed")
    result = command.divergences(["seeds", "jit-auto", "top-k-ties"], pair)
    found = {row["id"]: {name: one["status"] for name, one in row["backends"].items()} for row in result["divergences"]}
    both = dict.fromkeys(pair, "present")
    assert found == {"seeds": both, "top-k-ties": {"jax": "absent", "torch": "present"}, "jit-auto": both}
    assert result["exit_code"] == 0 and json.dumps(result)
    assert "torch: [2, 4]" in capsys.readouterr().out


def test_a_reproducer_that_raises_ends_with_exit_code_1(monkeypatch, matrix):
    if not installed("torch", matrix):
        pytest.skip("torch is not installed")
    missing = Divergence(
        "x", "X", "fault", ("torch",), "s", "c", "a", "k3seq.parity.divergences.known:nothing_here", {"keras": "1"}
    )
    monkeypatch.setattr(divergences, "choose", lambda ids: [missing])
    result = command.divergences([], ["torch"])
    assert result["exit_code"] == 1
    assert "nothing_here" in result["divergences"][0]["backends"]["torch"]["seen"]


def installed(name, known):
    return matrix.installed(name, known)
