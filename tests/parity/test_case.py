"""Cases: inputs depend on the seed only, a case can be sent to a process, and names are checked."""

import numpy as np
import pytest

from k3seq.errors import UsageError
from k3seq.parity.case import Case, Spec, check_inputs, from_payload, specs
from k3seq.runtime import exchange

pytestmark = pytest.mark.once

CASE = Case(
    "two",
    "package.module:factory",
    {"units": 4},
    {"x": Spec((3, 5)), "ids": [Spec((3,), "int32", 2, 5)]},
    {"mask": Spec((40,), "bool"), "lengths": np.array([1, 2], "int32"), "deep": {"flag": True}},
    ("mask",),
)


def test_a_case_arrives_as_it_was_sent(tmp_path):
    exchange.write(tmp_path / "case", CASE.to_payload())
    arrived = from_payload(exchange.read(tmp_path / "case"))
    np.testing.assert_array_equal(arrived.call["lengths"], CASE.call["lengths"])
    assert arrived.inputs == CASE.inputs and arrived.optional == ("mask",) and arrived.checks == CASE.checks
    assert arrived.to_payload().keys() == CASE.to_payload().keys()


def test_a_batch_depends_on_name_place_seed_and_number():
    batch, again, other = CASE.batch(), CASE.batch(), CASE.batch(1)
    np.testing.assert_array_equal(batch["inputs"]["x"], again["inputs"]["x"])
    assert not np.array_equal(batch["inputs"]["x"], other["inputs"]["x"])
    assert not np.array_equal(batch["inputs"]["x"], from_payload({**CASE.to_payload(), "seed": 1}).batch()["inputs"]["x"])
    np.testing.assert_array_equal(batch["call"]["lengths"], other["call"]["lengths"])  # arrays stay
    assert batch["call"]["deep"] == {"flag": True}


def test_drawn_values_are_in_their_range():
    batch = CASE.batch()
    assert batch["inputs"]["x"].dtype == "float32" and batch["inputs"]["x"].shape == (3, 5)
    assert batch["inputs"]["ids"][0].dtype == "int32" and set(batch["inputs"]["ids"][0]) <= {2, 3, 4}
    assert set(batch["call"]["mask"]) == {True, False}
    uniform = Case("u", "m:f", inputs=Spec((200,), low=1.0, high=3.0)).batch()["inputs"]
    assert 1.0 <= uniform.min() < 1.1 and 2.9 < uniform.max() < 3.0


@pytest.mark.parametrize(
    "wrong, message",
    [
        (lambda: Case("c", "keras.layers.Dense"), "factory as package.module:name. Received: keras.layers.Dense"),
        (lambda: Case("c", "m:f", checks=["forwards"]), "Received: forwards"),
        (lambda: Case("c", "m:f", optional=["mask"]), "Received: mask"),
        (lambda: Case("c", "m:f", steps={"adamw": 3}), "Received: adamw"),
        (lambda: Spec((3,), "int32"), "Expected high"),
        (lambda: Spec((3,), "int32", high=0), "Expected high above low"),
        (lambda: Spec((-1,)), r"Expected shape as a list of sizes of at least 0, such as \[2, 5\]. Received: \(-1,\)"),
        (lambda: Spec("x"), "Received: 'x'"),
        (lambda: Spec((2.5,)), "Received: .2.5,."),
        (lambda: Spec((3,), "nope"), "Expected dtype as a NumPy name .*Received: 'nope'"),
        (lambda: Spec((3,), "str"), "Received: 'str'"),
        (lambda: Spec((3,), low="a", high=1), "Expected low and high as numbers. Received: 'a'"),
        (lambda: specs({"shape": [3], "hi": 4}), "Received: hi"),
    ],
)
def test_a_wrong_case_is_refused(wrong, message):
    with pytest.raises(UsageError, match=message):
        wrong()


def test_json_describes_inputs():
    given = {"x": {"shape": [3, 5]}, "ids": [{"shape": [3], "dtype": "int32", "high": 20}], "shape": "not a list"}
    assert specs(given) == {"x": Spec((3, 5)), "ids": [Spec((3,), "int32", high=20)], "shape": "not a list"}
    check_inputs({"x": {"shape": [3, 5]}, "ids": [{"shape": [3], "dtype": "int32", "high": 20}]})
    with pytest.raises(UsageError, match="Expected inputs as .*Received: 'not a list' in"):
        check_inputs(given)
