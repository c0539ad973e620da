"""The seam: the same few verbs on every backend."""

import keras
import numpy as np
import pytest
from keras import ops

from k3seq import backend


def test_describe_names_the_backend_that_runs():
    found = backend.describe()
    assert found["backend"] == keras.backend.backend()
    assert found["devices"] and set(found) == {"backend", "version", "keras", "devices", "jit", "kernels"}


def test_value_and_grad_of_a_nested_argument_equals_calculus():
    def function(x, scale):
        return ops.sum(scale * x["a"] ** 2) + ops.sum(x["b"] ** 3)

    x = {"a": np.array([1.0, -2.0], "float32"), "b": np.array([[3.0]], "float32")}
    value, gradient = backend.value_and_grad(function)(
        {name: ops.convert_to_tensor(leaf) for name, leaf in x.items()}, ops.convert_to_tensor(2.0)
    )
    np.testing.assert_allclose(ops.convert_to_numpy(value), 2 * 5 + 27, rtol=1e-6)
    np.testing.assert_allclose(ops.convert_to_numpy(gradient["a"]), [4.0, -8.0], rtol=1e-6)
    np.testing.assert_allclose(ops.convert_to_numpy(gradient["b"]), [[27.0]], rtol=1e-6)


@pytest.mark.parametrize("compile_it", [False, True])
def test_what_goes_beside_the_value_comes_back_beside_it(compile_it):
    def function(x, y):
        return ops.sum(x * y), {"double": 2 * x}

    call = backend.value_and_grad(function, aux=True)
    call = backend.compiled(call) if compile_it else call
    x, y = np.array([1.0, 2.0], "float32"), np.array([3.0, 4.0], "float32")
    (value, aux), gradient = call(ops.convert_to_tensor(x), ops.convert_to_tensor(y))
    assert float(value) == 11.0
    np.testing.assert_array_equal(ops.convert_to_numpy(aux["double"]), [2.0, 4.0])
    np.testing.assert_array_equal(ops.convert_to_numpy(gradient), y)


def test_gradient_is_zero_where_the_value_does_not_depend_on_the_argument():
    _, gradient = backend.value_and_grad(lambda x: ops.sum(x["used"]))({name: ops.ones((2,)) for name in ("used", "unused")})
    np.testing.assert_array_equal(ops.convert_to_numpy(gradient["unused"]), [0.0, 0.0])


@pytest.mark.parametrize("jit", [None, False])
def test_compiled_sees_the_present_value_of_a_variable(jit):
    variable = keras.Variable(np.ones((2,), "float32"))
    call = backend.compiled(lambda x: x * variable.value, [variable], jit)
    np.testing.assert_array_equal(ops.convert_to_numpy(call(np.array([2.0, 3.0], "float32"))), [2.0, 3.0])
    variable.assign([10.0, 100.0])
    np.testing.assert_array_equal(ops.convert_to_numpy(call(np.array([2.0, 3.0], "float32"))), [20.0, 300.0])


def test_compiled_compiles_once_for_each_shape():
    call = backend.compiled(lambda x: x + 1)
    for size in (2, 3, 2, 3, 2):
        call(np.zeros((size,), "float32"))
    assert call.compilations() == (0 if keras.backend.backend() == "torch" else 2)


def test_synchronize_returns_what_it_waited_for():
    value = {"a": ops.ones((2,))}
    assert backend.synchronize(value) is value
