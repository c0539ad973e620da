"""Every layer and model of k3seq on every backend: parameters, outputs, gradients, training, tokens, files both ways."""

import importlib
import pkgutil

import keras
import pytest

from k3seq.parity import Pool, run_parity
from k3seq.parity.own_cases import CASES
from k3seq.parity.subject import made
from k3seq.runtime.matrix import installed

pytestmark = pytest.mark.once

TRAINED = ("LSTMSeq2Seq", "AttentionSeq2Seq", "TransformerSeq2Seq", "SlidingSeq2Seq", "SlidingArithmetic", "BookDecoder", "VAE")
ROOMS = ("layers", "models", "seq2seq")
# Registered layers that no case holds, and why.
NO_CASE = {
    "AttentionMechanism": "the base of the mechanisms: it has no score",
    "BeamSearchDecoder": "decodes and does not train; tests/seq2seq holds it to golden results on every backend",
}


@pytest.fixture(scope="module")
def report(matrix):
    names = [name for name in matrix.training if installed(name, matrix)]
    if len(names) < 2:
        pytest.skip(f"fewer than two backends are installed ({', '.join(names)}): there is nothing to compare")
    with Pool(names, matrix) as pool:
        return run_parity(CASES, pool=pool)


def registered():
    """The layers registered under the package "k3seq" in the rooms, by name."""
    for room in ROOMS:
        for module in pkgutil.iter_modules(importlib.import_module(f"k3seq.{room}").__path__, f"k3seq.{room}."):
            importlib.import_module(module.name)
    objects = keras.saving.get_custom_objects()
    found = {key.removeprefix("k3seq>"): made for key, made in objects.items() if key.startswith("k3seq>")}
    rooms = tuple(f"k3seq.{room}." for room in ROOMS)
    return {n: c for n, c in found.items() if issubclass(c, keras.layers.Layer) and c.__module__.startswith(rooms)}


def covered(cases):
    """The names of the classes that the cases make, and of the layers inside."""
    return {type(part).__name__ for case in cases for part in made(case.to_payload())._flatten_layers()}


def without_case(cases):
    return sorted(set(registered()) - covered(cases) - set(NO_CASE))


def test_every_registered_layer_and_model_has_a_case():
    assert len(registered()) > 40 and set(NO_CASE) <= set(registered())
    assert without_case(CASES) == []
    assert not set(NO_CASE) & covered(CASES)


def test_a_layer_that_loses_its_case_is_found():
    assert without_case([case for case in CASES if case.name not in ("GRU", "GRU-state", "BidirectionalGRU", "Debed")]) == [
        "BidirectionalGRU"
    ]


def rows(report, name):
    return [row for row in report.rows if row.case == name]


@pytest.mark.parametrize("name", [case.name for case in CASES])
def test_a_layer_or_model_is_the_same_on_every_backend(report, name):
    found = rows(report, name)
    assert [row for row in found if row.verdict not in ("equal", "skipped")] == []
    pairs = len(report.backends) * (len(report.backends) - 1) // 2
    compared = {check: sum(row.check == check and row.verdict == "equal" for row in found) for check in ("forward", "files")}
    assert compared == {"forward": pairs, "files": 2 * pairs}


@pytest.mark.parametrize("name", TRAINED)
def test_a_model_trains_alike(report, name):
    found = {row.check for row in rows(report, name) if row.verdict == "equal"}
    assert {"gradients", "sgd", "adam", "slots"} <= found


def test_models_with_a_decoder_give_the_same_tokens_before_and_after_training(report):
    decoding = [case.name for case in CASES if case.decode is not None]
    assert len(decoding) >= 4
    for name in decoding:
        assert {row.message for row in rows(report, name) if row.check == "decode"} == {"", "after 20 SGD steps"}
