"""Every golden attention case: mechanisms, masks and wrapper variants of TensorFlow Addons 0.23, every array of every step."""

import pytest

import golden
from k3seq.runtime.workers import launch
from seq2seq import attention_cases

LIMITS = {"f32": 1e-5, "f64": 1e-10}


# JAX compiles every case, which takes a second each: without --heavy it takes the first of each family.
EVERY = pytest.mark.parametrize("every", [False, pytest.param(True, marks=pytest.mark.heavy)])


def first_of_each(ids):
    """The first case of each family."""
    return list({golden.case(id).family: id for id in reversed(ids)}.values())


def too_large(errors, precision):
    return {id: error for id, error in errors.items() if not error < LIMITS[precision]}


@EVERY
def test_attention_equals_tensorflow_addons_in_float32(backend, every):
    ids = attention_cases.ids("f32")
    assert len(ids) == 49
    if backend == "jax" and not every:
        ids = first_of_each(ids)
        assert len(ids) == 6
    elif backend == "tensorflow" and not every:  # those that do not run in float64 below, and some that do
        double = attention_cases.ids("f64")
        ids = [*double[::8], *(id for id in ids if id not in double)]
    assert too_large({id: max(attention_cases.run(id, "f32").values()) for id in ids}, "f32") == {}


@EVERY
def test_attention_equals_tensorflow_addons_in_float64(backend, every):
    if every and backend != "jax":
        pytest.skip("the test without --heavy runs every case")
    ids = attention_cases.ids("f64")
    assert len(ids) == 41
    payload = {"precision": "f64", "ids": first_of_each(ids) if backend == "jax" and not every else ids}
    if backend == "jax":
        environment = {"JAX_ENABLE_X64": "1", "XLA_FLAGS": "--xla_backend_optimization_level=0"}
        errors = launch("jax", "seq2seq.attention_cases:run_all", payload, environment=environment)
    else:
        errors = attention_cases.run_all(payload)
    assert sorted(errors) == sorted(payload["ids"]) and too_large(errors, "f64") == {}


def test_a_case_without_its_lengths_differs():
    errors = attention_cases.run("attention_luong__scale0_mask_nolayer", "f32", without=("memory_sequence_length",))
    assert errors["alignments"] > 1e-2
