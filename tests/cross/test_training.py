"""The same seed on every backend: starting weights, losses, trained weights, decoded tokens."""

import numpy as np
import pytest

from cross.training import MODELS
from golden import relative_error

pytestmark = pytest.mark.once

ADAM = {"optimizer": "adam", "rate": 0.01, "clip": 1.0, "stock": False}
SGD = {"optimizer": "sgd", "rate": 0.3, "clip": 1.0, "stock": False}


def compare(results):
    """(the first backend's result, those of the others)."""
    first, *others = results.values()
    return first, others


def largest_error(found, expected):
    """Largest relative error of arrays under the same names."""
    assert list(found) == list(expected)
    return max(relative_error(found[name], expected[name]) for name in expected)


def equal(found, expected):
    return all(np.array_equal(found[name], expected[name]) for name in expected)


@pytest.fixture(scope="module")
def starts(backends):
    return backends.ask_all("cross.training:start", {"seed": 0})


@pytest.fixture(scope="module")
def adam(backends):
    return backends.ask_all("cross.training:train", ADAM)


@pytest.fixture(scope="module")
def sgd(backends):
    return backends.ask_all("cross.training:train", SGD)


@pytest.fixture(scope="module")
def sliding(backends):
    return backends.ask_all("cross.training:train_sliding", {"seed": 0})


@pytest.mark.parametrize("kind", MODELS)
def test_a_seed_gives_the_same_bits_on_every_backend(starts, kind):
    first, others = compare(starts)
    for other in others:
        assert list(other[kind]["weights"]) == list(first[kind]["weights"])
        assert equal(other[kind]["weights"], first[kind]["weights"])


def test_another_seed_gives_other_weights_and_tokens(backends, starts):
    name = list(starts)[-1]
    again = backends.ask("cross.training:start", {name: {"seed": 1}})[name]
    for kind in MODELS:
        assert not equal(again[kind]["weights"], starts[name][kind]["weights"])
        assert not np.array_equal(again[kind]["decoded"]["tokens"], starts[name][kind]["decoded"]["tokens"])


def test_twenty_adam_steps_give_the_same_losses_to_four_digits(adam, tolerance):
    first, others = compare(adam)
    assert len(first["losses"]) == 20 and first["losses"][-1] < first["losses"][0] - 0.2
    for other in others:
        # Half a unit of the fourth digit: printed digits may differ only where a number stands at a border of rounding.
        unit = 10.0 ** (np.floor(np.log10(first["losses"])) - 3)
        assert np.all(np.abs(other["losses"] - first["losses"]) < unit / 2)
        assert relative_error(other["losses"], first["losses"]) <= tolerance("adam_losses")


def test_the_train_step_of_keras_gives_other_adam_losses_on_tensorflow(backends):
    """Without clipping: Keras' clipping happens to make the gradients of embeddings dense."""
    if "tensorflow" not in backends.workers:
        pytest.skip("backend tensorflow is not installed")
    ours, stock = (
        backends.ask("cross.training:train", {"tensorflow": {**ADAM, "clip": None, "stock": stock}})["tensorflow"]
        for stock in (False, True)
    )
    assert relative_error(stock["losses"], ours["losses"]) > 1e-3


def test_twenty_sgd_steps_give_the_same_weights(sgd, adam, starts, tolerance):
    first, others = compare(sgd)
    for other in others:
        assert largest_error(other["weights"], first["weights"]) <= tolerance("sgd_weights")
    name = next(iter(sgd))
    assert largest_error(adam[name]["weights"], first["weights"]) > tolerance("sgd_weights")
    before = starts[name]["lstm-attention"]["weights"]
    moved = [relative_error(before[path], value) for path, value in first["weights"].items()]
    assert min(moved) > tolerance("sgd_weights")  # every weight was trained


@pytest.mark.parametrize("run", ["adam", "sgd"])
def test_a_trained_model_decodes_to_the_same_tokens(run, request):
    first, others = compare(request.getfixturevalue(run))
    for other in others:
        np.testing.assert_array_equal(other["decoded"]["tokens"], first["decoded"]["tokens"])
        np.testing.assert_array_equal(other["decoded"]["lengths"], first["decoded"]["lengths"])


def test_models_trained_otherwise_decode_to_other_tokens(adam, sgd):
    name = next(iter(adam))
    assert not np.array_equal(adam[name]["decoded"]["tokens"], sgd[name]["decoded"]["tokens"])


@pytest.mark.parametrize("kind", MODELS)
def test_every_kind_decodes_to_the_same_tokens_from_one_seed(starts, kind):
    first, *others = (result[kind]["decoded"] for result in starts.values())
    assert len(np.unique(first["tokens"])) > 1
    for other in others:
        np.testing.assert_array_equal(other["tokens"], first["tokens"])
        np.testing.assert_allclose(other["scores"], first["scores"], rtol=1e-5)


def test_sliding_steps_give_the_same_losses_and_exactly_the_same_context(sliding, tolerance):
    first, others = compare(sliding)
    assert all(np.any(context) for context in first["contexts"])
    for other in others:
        assert relative_error(other["losses"], first["losses"]) <= tolerance("adam_losses")
        np.testing.assert_array_equal(other["contexts"], first["contexts"])


def test_sliding_steps_on_other_batches_give_other_losses_and_contexts(backends, sliding, tolerance):
    name = list(sliding)[-1]
    other = backends.ask("cross.training:train_sliding", {name: {"seed": 1}})[name]
    assert relative_error(other["losses"], sliding[name]["losses"]) > tolerance("adam_losses")
    assert not np.array_equal(other["contexts"], sliding[name]["contexts"])
