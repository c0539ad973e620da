"""The reference implementation on NumPy beside the backend that runs: the same forward passes, the same decoded tokens."""

import every_model
import keras
import numpy as np
import pytest

from k3seq import backend
from k3seq.backend import reference
from k3seq.runtime import workers
from k3seq.runtime.matrix import Backend, Matrix

NUMPY = Matrix({"numpy": Backend("numpy", "numpy", ("numpy",), "pip install numpy")})


@pytest.fixture(scope="module")
def numpy():
    """A process on NumPy: (function of `every_model`, payload) -> its result."""
    with workers.Worker("numpy", backends=NUMPY) as worker:

        def request(function, payload=None):
            found = worker.request(f"every_model:{function}", payload)
            assert not isinstance(found, workers.Failure), found.stderr
            return found

        yield request


@pytest.fixture(scope="module")
def expected():
    return every_model.measure({"seed": 0})


@pytest.fixture(scope="module")
def found(numpy):
    return numpy("measure", {"seed": 0})


KINDS = list(every_model.SMALL)


def test_every_trainable_model_is_compared():
    assert set(KINDS) == set(every_model.registry.TRAINABLE)


@pytest.mark.parametrize("kind", KINDS)
def test_numpy_gives_the_same_forward_pass(kind, found, expected):
    wanted = expected[kind]["logits"]
    np.testing.assert_allclose(found[kind]["logits"], wanted, rtol=0, atol=1e-5 * np.max(np.abs(wanted)))


@pytest.mark.parametrize("way", ["greedy", "beam", "sample"])
@pytest.mark.parametrize("kind", KINDS)
def test_numpy_decodes_the_same_tokens(kind, way, found, expected):
    np.testing.assert_array_equal(found[kind][way], expected[kind][way])


@pytest.mark.parametrize("kind", KINDS)
def test_other_weights_give_other_results(kind, expected):
    other = every_model.measure_one(kind, 1)
    assert np.max(np.abs(other["logits"] - expected[kind]["logits"])) > 1e-2 * np.max(np.abs(other["logits"]))
    assert any((other[way] != expected[kind][way]).any() for way in ("greedy", "beam", "sample"))


def test_training_on_numpy_is_refused_in_one_line_and_evaluation_works(numpy):
    found = numpy("train")
    assert set(found["raised"]) == {"fit", "train_on_batch"} and set(found["evaluated"]) == {"loss"}
    for message in found["raised"].values():
        assert message.startswith("Expected a backend that trains: KERAS_BACKEND=jax, tensorflow or torch. Received: numpy")
        assert "\n" not in message


# The functions of the reference on the backend that runs, beside the backend's own.
DRAW = np.random.default_rng(0)
X, KERNEL, RECURRENT = (DRAW.normal(size=shape).astype("float32") for shape in ((3, 4, 5), (5, 24), (6, 24)))
BIAS, H, C = (DRAW.normal(size=shape).astype("float32") for shape in ((24,), (3, 6), (3, 6)))
LENGTHS = np.array([4, 0, 2], "int32")
GRU = (KERNEL[:, :18], RECURRENT[:, :18], np.stack([BIAS[:18], BIAS[6:]]))
TOKENS = DRAW.integers(0, 5, (3, 4)).astype("int32")
CALLS = {
    "affine": (X, KERNEL, BIAS),
    "lstm_sequence": (X, None, H, C, KERNEL, RECURRENT, BIAS),
    "lstm_sequence with lengths": (X, LENGTHS, H, C, KERNEL, RECURRENT, BIAS),
    "gru_sequence": (X, None, H, *GRU),
    "gru_sequence with lengths": (X, LENGTHS, H, *GRU),
    "crossentropies": (TOKENS, X, 0.1),
    "crossentropies of distributions": (np.abs(X), X, 0.1),
}


def numbers(function, arguments):
    tensors = [keras.ops.convert_to_tensor(a) if isinstance(a, np.ndarray) else a for a in arguments]
    return [keras.ops.convert_to_numpy(leaf) for leaf in keras.tree.flatten(function(*tensors))]


@pytest.mark.parametrize("name", CALLS)
def test_a_function_of_the_reference_equals_the_backends_own(name):
    function, arguments = name.split()[0], CALLS[name]
    found, expected = (numbers(getattr(module, function), arguments) for module in (reference, backend))
    for one, other in zip(found, expected, strict=True):
        np.testing.assert_allclose(one, other, rtol=0, atol=2e-6 * max(1.0, np.max(np.abs(other))))
    scaled = numbers(getattr(reference, function), [1.1 * X if a is X else a for a in arguments])
    assert max(np.max(np.abs(one - other)) for one, other in zip(scaled, expected, strict=True)) > 1e-3
