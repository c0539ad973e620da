"""`backend.unroll`: ends early, keeps its length under a trace, and has the gradient of the steps that ran."""

import numpy as np
import pytest
from keras import ops

from k3seq import backend
from k3seq.errors import UsageError

ROWS = np.array([[2.0], [3.0], [5.0], [7.0]], "float32")


def product(x, stop=100.0, length=4, **options):
    """The running product of rows of x while it is below `stop`: (product, products so far)."""

    def step(time, now, carry):
        value = carry["value"] * now["row"]
        return {"value": value, "time": time}, (value, time)

    carry = {"value": ops.ones((1,)), "time": ops.zeros((), "int32") - 1}
    blank = (ops.zeros((1,)), ops.zeros((), "int32"))
    slices = {"row": x[:length]}
    return backend.unroll(step, lambda carry: carry["value"][0] < stop, carry, blank, length, slices, **options)


def test_an_eager_loop_gives_the_steps_that_ran():
    carry, (values, times) = product(ops.convert_to_tensor(ROWS), stop=10.0)
    np.testing.assert_array_equal(ops.convert_to_numpy(values), [[2.0], [6.0], [30.0]])
    np.testing.assert_array_equal(ops.convert_to_numpy(times), [0, 1, 2])
    assert float(carry["value"][0]) == 30.0 and int(carry["time"]) == 2


def test_a_whole_loop_and_a_compiled_one_give_every_step_and_blanks_after_the_end():
    eager = product(ops.convert_to_tensor(ROWS), stop=10.0, whole=True)
    compiled = backend.compiled(lambda x: product(x, stop=10.0, whole=True))(ROWS)
    for carry, (values, _) in (eager, compiled):
        np.testing.assert_array_equal(ops.convert_to_numpy(values), [[2.0], [6.0], [30.0], [0.0]])
        assert float(carry["value"][0]) == 30.0


def test_a_loop_that_never_begins_gives_no_steps():
    _, (values, _) = product(ops.convert_to_tensor(ROWS), stop=0.5)
    assert tuple(values.shape) == (0, 1)
    _, (values, _) = product(ops.convert_to_tensor(ROWS), stop=0.5, whole=True)
    np.testing.assert_array_equal(ops.convert_to_numpy(values), np.zeros((4, 1)))


@pytest.mark.parametrize("compile_it", [False, True])
def test_the_gradient_is_that_of_the_steps_that_ran(compile_it):
    call = backend.value_and_grad(lambda x: ops.sum(product(x, stop=10.0)[0]["value"]))
    value, gradient = (backend.compiled(call) if compile_it else call)(ops.convert_to_tensor(ROWS))
    assert float(value) == 30.0
    np.testing.assert_allclose(ops.convert_to_numpy(gradient), [[15.0], [10.0], [6.0], [0.0]])


def test_without_a_length_an_eager_loop_goes_on_until_its_end():
    def double(time, now, carry):
        return carry * 2, carry

    carry, values = backend.unroll(double, lambda carry: carry < 50, ops.ones(()), ops.zeros(()))
    assert float(carry) == 64.0 and tuple(values.shape) == (6,)


def test_known_is_the_value_outside_of_a_trace():
    seen = []

    def look(x):
        seen.append(backend.known(x))
        return x

    backend.compiled(look)(ROWS)
    traced = backend.compiled(look).compilations() is not None and seen[0] is None
    np.testing.assert_array_equal(backend.known(ops.convert_to_tensor(ROWS)), ROWS)
    assert traced or np.array_equal(seen[0], ROWS)


def test_a_compiled_loop_without_a_length_raises_or_runs_to_its_end():
    call = backend.compiled(lambda x: backend.unroll(lambda t, n, c: (c * 2, c), lambda c: c < 50, x, ops.zeros(()))[0])
    try:
        assert float(call(np.float32(1))) == 64.0
    except UsageError as error:
        assert "Expected maximum_iterations to be an integer" in str(error)
