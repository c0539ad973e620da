"""Keras' own train step on TensorFlow squares the parts of an embedding's gradient under Adam: `k3seq parity` finds that."""

import contextlib
import io

import pytest

from k3seq.commands import parity
from k3seq.runtime.matrix import installed

pytestmark = pytest.mark.once

NAMES = ("jax", "tensorflow", "torch")
PAIRS = {("jax", "tensorflow"): "differs", ("jax", "torch"): "equal", ("tensorflow", "torch"): "differs"}


@pytest.fixture(scope="module")
def found(matrix):
    """What the command returned and printed."""
    if not all(installed(name, matrix) for name in NAMES):
        pytest.skip("two of the three backends show that two are unlike, and not which one is off")
    with contextlib.redirect_stdout(io.StringIO()) as printed:
        results = parity.parity(["parity.parts:stock"], NAMES, ["gradients", "sgd", "adam", "slots"])
    return results, printed.getvalue()


def verdicts(found, check):
    return {tuple(row["pair"]): row["verdict"] for row in found[0]["rows"] if row["check"] == check}


@pytest.mark.parametrize("check", ["adam", "slots"])
def test_repeated_ids_under_adam_differ_on_tensorflow(found, check):
    assert found[0]["exit_code"] == 1 and verdicts(found, check) == PAIRS


@pytest.mark.parametrize("check", ["adam", "slots"])
def test_float64_says_that_tensorflow_is_off(found, check):
    for row in found[0]["rows"]:
        if row["check"] == check and row["verdict"] == "differs":
            assert row["judge"].startswith("float64 (jax): off tensorflow ") and "near jax" in row["judge"]
            assert "tokens" in row["where"]


@pytest.mark.parametrize("check", ["gradients", "sgd"])
def test_the_gradient_itself_and_its_descent_are_equal(found, check):
    assert verdicts(found, check) == dict.fromkeys(PAIRS, "equal")


def test_the_command_prints_each_difference_once_and_a_table(found):
    printed = found[1].splitlines()
    told = [line for line in printed if line.startswith("differs: stock adam ")]
    assert len(told) == 2 and all("float64 (jax): off tensorflow" in line for line in told)
    assert any(line.split("┃")[1:-1] and "gradients" in line and "slots" in line for line in printed)
    assert printed[-1].startswith("12 comparisons, 4 not equal, ")
