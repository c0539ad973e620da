"""The pure alignment functions against golden vectors, against plain NumPy, and at their edges."""

import keras
import numpy as np
import pytest
from keras import ops

import golden
from k3seq import backend
from k3seq.layers.alignments import hardmax, mask_scores, monotonic_attention, safe_cumprod, softmax
from k3seq.runtime.workers import launch

FAMILIES = ("monotonic_attention", "safe_cumprod", "hardmax")
TOLERANCE = {"f32": 1e-5, "f64": 1e-10}
DTYPE = {"f32": "float32", "f64": "float64"}


def results(case, precision):
    """The arrays of a golden case, computed here."""
    given = {name: ops.convert_to_tensor(a.astype(DTYPE[precision])) for name, a in case.group("in").items()}
    if case.family == "hardmax":
        return {"y": hardmax(given["logits"])}
    if case.family == "safe_cumprod":
        return {"y": safe_cumprod(given["x"], **case.params["kwargs"])}

    def twice(p, previous):
        attention = monotonic_attention(p, previous, case.params["mode"])
        return attention, monotonic_attention(ops.flip(p, axis=1), attention, case.params["mode"])

    # JAX compiles every operation of an eager run for itself, the others do not
    fast = backend.compiled(twice) if keras.backend.backend() == "jax" else twice
    attention, following = fast(given["p_choose_i"], given["previous_attention"])
    return {"attention": attention, "attention_next": following}


def ids(precision):
    """Every case that has results of a precision."""
    every = [parameters.values[0] for family in FAMILIES for parameters in golden.cases(family)]
    return [id for id in every if precision in golden.case(id).precisions]


def worst(payload):
    """{id: largest relative error} of cases at one precision; also run in a separate process."""
    precision, errors = payload["precision"], {}
    for id in payload["ids"]:
        case = golden.case(id)
        got, expected = results(case, precision), case.group(precision)
        assert got.keys() == expected.keys()
        errors[id] = max(golden.relative_error(ops.convert_to_numpy(got[name]), a) for name, a in expected.items())
    return errors


def too_large(errors, precision):
    return {id: error for id, error in errors.items() if not error < TOLERANCE[precision]}


def test_the_functions_equal_tensorflow_addons_in_float32(backend):
    chosen, double = ids("f32"), ids("f64")
    assert len(chosen) == 25
    if backend == "jax":  # of those that also run in float64 below, one in four: every shape is a compilation
        chosen = [*double[::4], *(id for id in chosen if id not in double)]
    assert too_large(worst({"ids": chosen, "precision": "f32"}), "f32") == {}


def test_the_functions_equal_tensorflow_addons_in_float64(backend):
    payload = {"ids": ids("f64"), "precision": "f64"}
    if backend == "jax":
        environment = {"JAX_ENABLE_X64": "1", "XLA_FLAGS": "--xla_backend_optimization_level=0"}
        errors = launch("jax", "layers.test_alignments:worst", payload, environment=environment)
    else:
        errors = worst(payload)
    assert len(errors) == 20 and too_large(errors, "f64") == {}


def reader(p, previous):
    """Raffel et al., eq. 10, entry by entry: where the reader stops, from where it stopped before."""
    attention = np.zeros_like(p)
    for row in range(p.shape[0]):
        arriving = 0.0
        for j in range(p.shape[1]):
            arriving = previous[row, j] + (arriving * (1 - p[row, j - 1]) if j else 0.0)
            attention[row, j] = p[row, j] * arriving
    return attention


@pytest.mark.parametrize("mode", ["recursive", "parallel", "hard"])
def test_each_mode_equals_the_definition_of_the_paper(mode):
    rng = np.random.default_rng(3)
    p = rng.uniform(0.1, 0.9, (3, 7)).astype("float32")
    previous = rng.dirichlet(np.ones(7), 3).astype("float32")
    if mode == "hard":
        p, previous = np.round(p), np.eye(7, dtype="float32")[[0, 3, 6]]
    got = ops.convert_to_numpy(backend.compiled(lambda p, a: monotonic_attention(p, a, mode))(p, previous))
    assert golden.relative_error(got, reader(p, previous)) < 1e-5
    assert golden.relative_error(got, reader(p[:, ::-1], previous)) > 0.1


def test_probability_one_stops_at_the_first_allowed_entry():
    p = np.array([[1.0, 0.0, 1.0, 1.0]], "float32")
    for mode in ("recursive", "hard"):  # "parallel" divides by a product that is 0 here
        stopped = monotonic_attention(p, np.array([[0.0, 1.0, 0.0, 0.0]], "float32"), mode)
        np.testing.assert_allclose(ops.convert_to_numpy(stopped), [[0, 0, 1, 0]], atol=1e-6)


def test_the_gradient_of_a_cumulative_product_exists_at_a_factor_of_zero():
    x = np.array([[0.5, 0.0, 0.25]], "float32")
    value, gradient = backend.value_and_grad(lambda x: ops.sum(safe_cumprod(x, axis=1)))(ops.convert_to_tensor(x))
    assert float(value) == pytest.approx(0.5) and np.isfinite(ops.convert_to_numpy(gradient)).all()


@pytest.mark.parametrize("dtype", ["float16", "bfloat16", "float32"])
def test_a_fully_masked_row_is_uniform_and_a_masked_entry_of_another_is_zero(dtype):
    scores = ops.cast(np.array([[9.0, 1.0, 1.0, -3.0]] * 2), dtype)
    mask = np.array([[False] * 4, [False, True, True, False]])
    got = softmax(mask_scores(scores, ops.convert_to_tensor(mask)))
    assert keras.backend.standardize_dtype(got.dtype) == dtype
    np.testing.assert_array_equal(ops.convert_to_numpy(ops.cast(got, "float32")), [[0.25] * 4, [0, 0.5, 0.5, 0]])


def test_a_given_mask_value_replaces_the_lowest_number():
    scores = mask_scores(ops.zeros((1, 2)), ops.convert_to_tensor([[True, False]]), -1.0)
    np.testing.assert_array_equal(ops.convert_to_numpy(scores), [[0, -1]])
