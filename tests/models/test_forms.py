"""Sequential, functional and subclassed forms of one model, as the functional tour shows them."""

import importlib.util

import keras
import numpy as np
import pytest

X = np.random.default_rng(0).normal(size=(5, 4)).astype("float32")


@pytest.fixture(scope="module")
def tour(root):
    spec = importlib.util.spec_from_file_location("functional_tour", root / "examples" / "functional_tour.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture
def forms(tour):
    return [tour.sequential(), tour.functional(), tour.Subclassed()]


def test_counts_are_equal(forms):
    assert [form.count_params() for form in forms] == [(4 + 1) * 8 + (8 + 1) * 3] * 3
    assert len({tuple(tuple(w.shape) for w in form.weights) for form in forms}) == 1


def test_outputs_are_equal_for_equal_weights_and_differ_for_others(forms):
    first = forms[0].predict(X, verbose=0)
    for form in forms[1:]:
        assert np.abs(form.predict(X, verbose=0) - first).max() > 1e-3
        form.set_weights(forms[0].get_weights())
        np.testing.assert_allclose(form.predict(X, verbose=0), first, atol=1e-6)


def test_each_form_is_saved_and_loaded(forms, tmp_path):
    for form in forms:
        form.save(tmp_path / "m.keras")
        loaded = keras.saving.load_model(tmp_path / "m.keras")
        np.testing.assert_array_equal(loaded.predict(X, verbose=0), form.predict(X, verbose=0))
