"""Every layer and model of k3seq on every backend: parameters, outputs, gradients, training, tokens, files in all directions.

The normal run trains a few cases for a few steps, uses training mode where it changes something, and lets each backend read a
file of one other backend. `pytest --heavy` runs every check of every case.
"""

import importlib
import pkgutil
from dataclasses import replace

import keras
import pytest

from k3seq.parity import checks, run_parity
from k3seq.parity.own_cases import CASES
from k3seq.parity.subject import make_layer
from k3seq.parity.verdicts import DEFAULT_CHECKS

pytestmark = pytest.mark.once

NAMES = [case.name for case in CASES]
TRAINING = ("sgd", "adam", "slots")
MODELS = ("LSTMSeq2Seq", "AttentionSeq2Seq", "TransformerSeq2Seq", "SlidingSeq2Seq", "SlidingArithmetic", "BookDecoder", "VAE")
TRAINED = ("GRU", "LSTMSeq2Seq", "TransformerSeq2Seq")  # in the normal run: a layer, a recurrent model, a Transformer
SHORT = {"sgd": 5, "adam": 10}
PACKAGES = ("layers", "models", "seq2seq")
# Registered layers without a case, and why.
NO_CASE = {
    "AttentionMechanism": "the base class of the mechanisms: it has no score",
    "BeamSearchDecoder": "decodes and does not train; tests/seq2seq compares it with golden results on every backend",
}


def shortened(case):
    """A case without training steps, and without training mode where that changes nothing; some are trained for a few steps."""
    if case.name in TRAINED:
        return replace(case, steps=SHORT)
    untrained = tuple(check for check in DEFAULT_CHECKS if check not in TRAINING)
    return replace(case, checks=untrained, training=case.name == "Dropout" or "dropout" in case.arguments)


@pytest.fixture(scope="module")
def report(workers):
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(checks, "directions", lambda names: list(zip(names, names[1:] + names[:1], strict=True)))
        return run_parity(map(shortened, CASES), pool=workers)


@pytest.fixture(scope="module")
def full_report(workers):
    return run_parity(CASES, pool=workers)


def registered():
    """The layers of `PACKAGES` that are registered under the package "k3seq", by name."""
    for package in PACKAGES:
        for module in pkgutil.iter_modules(importlib.import_module(f"k3seq.{package}").__path__, f"k3seq.{package}."):
            importlib.import_module(module.name)
    objects = keras.saving.get_custom_objects()
    found = {key.removeprefix("k3seq>"): kind for key, kind in objects.items() if key.startswith("k3seq>")}
    modules = tuple(f"k3seq.{package}." for package in PACKAGES)
    return {n: c for n, c in found.items() if issubclass(c, keras.layers.Layer) and c.__module__.startswith(modules)}


@pytest.fixture(scope="module")
def covered():
    """{name of a case: names of the classes of its layer and of the layers inside}."""
    return {c.name: {type(part).__name__ for part in make_layer(c.to_payload())._flatten_layers()} for c in CASES}


def without_case(covered):
    return sorted(set(registered()) - set().union(*covered.values()) - set(NO_CASE))


def test_every_registered_layer_and_model_has_a_case(covered):
    assert len(registered()) > 40 and set(NO_CASE) <= set(registered())
    assert without_case(covered) == []
    assert not set(NO_CASE) & set().union(*covered.values())


def test_a_layer_without_its_case_is_found(covered):
    removed = ("GRU", "GRU-state", "BidirectionalGRU", "Debed")
    assert without_case({name: kinds for name, kinds in covered.items() if name not in removed}) == ["BidirectionalGRU"]


def rows(report, name):
    return [row for row in report.rows if row.case == name]


def assert_equal(report, name, files):
    """Every row is equal or skipped; all pairs of backends were compared, and so many files were read."""
    found = rows(report, name)
    assert [row for row in found if row.verdict not in ("equal", "skipped")] == []
    pairs = len(report.backends) * (len(report.backends) - 1) // 2
    compared = {check: sum(row.check == check and row.verdict == "equal" for row in found) for check in ("forward", "files")}
    assert compared == {"forward": pairs, "files": files}


def trained(report, name):
    """The checks of gradients and training that compared something."""
    return {row.check for row in rows(report, name) if row.verdict == "equal"} & {"gradients", *TRAINING}


def decoded(report):
    """The messages of the checks of decoding, by case."""
    found = {}
    for row in report.rows:
        if row.check == "decode" and row.verdict == "equal":
            found.setdefault(row.case, set()).add(row.message)
    return found


@pytest.mark.parametrize("name", NAMES)
def test_a_layer_or_model_is_equal_on_every_backend(report, name):
    assert_equal(report, name, files=len(report.backends))


def test_training_is_equal_on_every_backend(report):
    assert {name: trained(report, name) for name in TRAINED} == {
        "GRU": {"gradients", "sgd", "adam"},  # a bare layer has no optimizer and so no slots
        "LSTMSeq2Seq": {"gradients", *TRAINING},
        "TransformerSeq2Seq": {"gradients", *TRAINING},
    }


def test_models_decode_the_same_tokens(report):
    found = decoded(report)
    assert set(found) == {case.name for case in CASES if case.decode is not None} and len(found) >= 4
    assert {name: messages for name, messages in found.items() if name in TRAINED} == dict.fromkeys(
        TRAINED[1:], {"", "after 5 SGD steps"}
    )


@pytest.mark.heavy
@pytest.mark.parametrize("name", NAMES)
def test_every_check_of_a_layer_or_model_is_equal_on_every_backend(full_report, name):
    assert_equal(full_report, name, files=len(full_report.backends) * (len(full_report.backends) - 1))


@pytest.mark.heavy
@pytest.mark.parametrize("name", MODELS)
def test_every_model_trains_equally(full_report, name):
    assert trained(full_report, name) == {"gradients", *TRAINING}


@pytest.mark.heavy
def test_models_decode_the_same_tokens_after_training(full_report):
    found = decoded(full_report)
    assert len(found) >= 4 and all(messages == {"", "after 20 SGD steps"} for messages in found.values())
