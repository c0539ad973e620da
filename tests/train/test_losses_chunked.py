"""The loss in parts is the plain loss of the same logits, and does not hold them: checked by what each framework keeps."""

import keras
import numpy as np
import pytest
from keras import ops

from golden import relative_error
from k3seq import backend
from k3seq.errors import UsageError
from k3seq.train import losses
from train.holding import most_held

B, T, D, V = 3, 5, 4, 11
DRAW = np.random.default_rng(0)
OUTPUTS = DRAW.normal(size=(B, T, D)).astype("float32")
KERNEL, BIAS = DRAW.normal(size=(D, V)).astype("float32"), DRAW.normal(size=V).astype("float32")
LABELS = DRAW.integers(0, V, (B, T)).astype("int32")
SOFT = DRAW.dirichlet(np.ones(V), (B, T)).astype("float32")
WEIGHTS = np.array([[1, 1, 1, 1, 1], [1, 0.5, 0, 0, 0], [2, 0, 0, 0, 0]], "float32")
CHUNKS = (4, 40)  # a last part that is not full, more parts than tokens
FORMS = {  # labels, weights, smoothing
    "ids": (LABELS, None, 0.0),
    "weighted and smoothed": (LABELS, WEIGHTS, 0.1),
    "distributions": (SOFT, WEIGHTS, 0.0),
}


def plain(weights, labels, counted, smoothing):
    return losses.token_crossentropy(labels, ops.matmul(weights["x"], weights["kernel"]) + weights["bias"], counted, smoothing)


def chunked(weights, labels, counted, smoothing, chunks):
    return losses.chunked_token_crossentropy(
        weights["x"], weights["kernel"], weights["bias"], labels, counted, smoothing, chunks
    )


def point(**changed):
    return {"x": OUTPUTS, "kernel": KERNEL, "bias": BIAS, **changed}


def gradients(weights, form):
    """{name: (value and gradients, flat)} of the plain loss and of each number of parts, in one compiled function."""
    labels, counted, smoothing = FORMS[form]

    def all_of(weights, labels):
        functions = {"plain": lambda w: plain(w, labels, counted, smoothing)}
        functions |= {n: (lambda w, n=n: chunked(w, labels, counted, smoothing, n)) for n in CHUNKS}
        return {str(name): backend.value_and_grad(function)(weights) for name, function in functions.items()}

    found = backend.compiled(all_of)(weights, labels)
    return {
        name: {"value": ops.convert_to_numpy(value), **{k: ops.convert_to_numpy(g) for k, g in gradient.items()}}
        for name, (value, gradient) in found.items()
    }


@pytest.mark.parametrize("form", FORMS)
def test_value_and_gradients_are_those_of_the_plain_loss(form):
    found = gradients(point(), form)
    expected = found.pop("plain")
    assert len(found) == len(CHUNKS)
    for one in found.values():
        for name, value in one.items():
            assert relative_error(value, expected[name]) <= 1e-6, name
    # One token of weight 1 moved by a hundredth is seen in the value and in every gradient.
    moved = OUTPUTS.copy()
    moved[0, T - 1] *= 1.01
    for name, value in gradients(point(x=moved), form)["4"].items():
        assert relative_error(value, expected[name]) > 1e-5, name


def test_without_a_bias_and_at_weight_zero():
    def all_of(x, broken, zero, bias, weights):
        def loss(x, bias, weights):
            return losses.chunked_token_crossentropy(x, KERNEL, bias, LABELS, weights, chunks=4)

        return {
            "no bias": loss(x, None, weights),
            "bias of zero": loss(x, zero, weights),
            "bias": loss(x, bias, weights),
            "broken at weight zero": loss(broken, zero, weights),
            "broken": loss(broken, zero, None),
            "no weight": loss(x, zero, weights * 0),
        }

    broken = np.where((WEIGHTS == 0)[..., None], np.inf, OUTPUTS).astype("float32")
    found = backend.compiled(all_of)(OUTPUTS, broken, np.zeros_like(BIAS), BIAS, WEIGHTS)
    found = {name: float(value) for name, value in found.items()}
    assert found["no bias"] == found["bias of zero"] == found["broken at weight zero"] != found["bias"]
    assert not np.isfinite(found["broken"])
    assert found["no weight"] == 0.0


@pytest.mark.parametrize("chunks", [0, -1, 2.0, True, None])
def test_a_number_of_parts_below_one_is_refused(chunks):
    with pytest.raises(UsageError, match="Expected chunks to be an integer of at least 1. Received: chunks="):
        losses.chunked_token_crossentropy(OUTPUTS, KERNEL, BIAS, LABELS, chunks=chunks)


def test_the_logits_never_exist_as_a_whole(monkeypatch):
    # Half of the logits: far over the outputs and the kernel, and over the three arrays of a part's size that a part needs.
    tokens, vocabulary, parts = 8 * 16, 2000, 16
    whole = tokens * vocabulary
    weights = {
        "x": DRAW.normal(size=(8, 16, D)).astype("float32"),
        "kernel": DRAW.normal(size=(D, vocabulary)).astype("float32"),
        "bias": np.zeros(vocabulary, "float32"),
    }
    labels = DRAW.integers(0, vocabulary, (8, 16)).astype("int32")

    def held(loss, *more):
        return most_held(lambda w: loss(w, labels, None, 0.0, *more), weights, parts)

    assert held(chunked, parts) < whole / 2
    assert held(plain) >= whole
    # Without recomputation every part's logits wait for the backward pass.
    monkeypatch.setattr(keras, "remat", lambda function: function)
    assert held(chunked, parts) >= whole
