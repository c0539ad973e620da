"""The same seed on every backend: initial weights, losses, and the context of the sliding model."""

import numpy as np
import pytest

from cross.training import MODELS
from golden import relative_error

pytestmark = pytest.mark.once

ADAM = {"clip": 1.0, "stock": False}


def compare(results):
    """(the first backend's result, those of the others)."""
    first, *others = results.values()
    return first, others


def equal(found, expected):
    return all(np.array_equal(found[name], expected[name]) for name in expected)


@pytest.fixture(scope="module")
def starts(backends):
    return backends.ask_all("cross.training:start", {"seed": 0})


@pytest.fixture(scope="module")
def adam(backends):
    return backends.ask_all("cross.training:train", ADAM)


@pytest.fixture(scope="module")
def sliding(backends):
    return backends.ask_all("cross.training:train_sliding", {"seed": 0})


@pytest.mark.parametrize("kind", MODELS)
def test_a_seed_gives_the_same_bits_on_every_backend(starts, kind):
    first, others = compare(starts)
    for other in others:
        assert list(other[kind]) == list(first[kind])
        assert equal(other[kind], first[kind])


def test_another_seed_gives_other_weights(backends, starts):
    name = list(starts)[-1]
    again = backends.ask("cross.training:start", {name: {"seed": 1}})[name]
    for kind in MODELS:
        assert not equal(again[kind], starts[name][kind])


def test_twenty_adam_steps_give_the_same_losses_to_four_digits(adam, tolerance):
    first, others = compare(adam)
    assert len(first["losses"]) == 20 and first["losses"][-1] < first["losses"][0] - 0.2
    for other in others:
        # Half a unit of the fourth digit: printed digits may differ only where a number is at a rounding boundary.
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
